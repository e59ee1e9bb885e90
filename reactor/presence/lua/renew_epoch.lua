-- Redis may have gone back to an older state, and a room's versions with it: they begin a new epoch, once for each life
-- of the server.
-- ARGV: room; run (what names the server's present life)
-- Returns: 1 when this call began the epoch, 0 when it was begun before or nobody is in the room
-- Publishes: nothing; the next diff does not join on to what anybody has, and makes everyone list the room anew
local state = state_key(ARGV[1])
if redis.call('EXISTS', state) == 0 or redis.call('HGET', state, 'run') == ARGV[2] then return 0 end
redis.call('HSET', state, 'run', ARGV[2], 'epoch', CLOCK[1] .. string.format('%06d', CLOCK[2]))
return 1
