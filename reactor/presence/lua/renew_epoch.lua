-- Redis may have gone back to an older state, and a room's versions with it: they begin a new epoch, once for each life
-- of the server.
-- ARGV: room; run (what names the server's present life)
-- Returns: 1 when this call began the epoch, 0 when it was begun before or nobody is in the room
-- Publishes: a diff that joins on to nothing and changes nothing: it makes everyone list the room anew
local room, run = ARGV[1], ARGV[2]
local state = state_key(room)
if redis.call('EXISTS', state) == 0 or redis.call('HGET', state, 'run') == run then return 0 end
local epoch = CLOCK[1] .. string.format('%06d', CLOCK[2])
redis.call('HSET', state, 'run', run, 'epoch', epoch)
local version, count = tonumber(redis.call('HGET', state, 'version') or 1), redis.call('ZCARD', members_key(room))
redis.call(PUBLISH, SHARD .. ':diff:' .. room, cmsgpack.pack({ epoch, version, version, count, {}, {}, {} }))
return 1
