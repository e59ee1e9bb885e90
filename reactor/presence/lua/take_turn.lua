-- One node of the fleet does a job at a time: whoever has the turn keeps it by asking again before it runs out.
-- KEYS: fleet prefix
-- ARGV: job; node; time (ms)
-- Returns: 1 when the turn is this node's, else 0
-- Publishes: nothing
local key = SHARD .. ':turn:' .. ARGV[1]
local owner = redis.call('GET', key)
if owner and owner ~= ARGV[2] then return 0 end
redis.call('SET', key, ARGV[2], 'PX', ARGV[3])
return 1
