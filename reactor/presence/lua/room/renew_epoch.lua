-- Begins a new epoch of a room, once for each life of the server: Redis may have gone back to an older state, and the
-- room's version with it.
-- ARGV: room; run (what names the server's present life)
-- Returns: 1 when this call began the epoch, 0 when it had begun before or the room is empty
-- Publishes: a diff that follows no known version and changes nothing, so that every node lists the room again
demand_right_to_change()
local room, run = ARGV[1], ARGV[2]
local state = state_key(room)
if redis.call('EXISTS', state) == 0 or call('HGET', state, 'run') == run then return 0 end
local epoch = new_epoch()
call('HSET', state, 'run', run, 'epoch', epoch)
local version, count = tonumber(call('HGET', state, 'version')) or 1, call('ZCARD', members_key(room))
redis.call(PUBLISH, CHANNELS .. ':diff:' .. room, cmsgpack.pack({ epoch, version, version, count, {}, {}, {} }))
return 1
