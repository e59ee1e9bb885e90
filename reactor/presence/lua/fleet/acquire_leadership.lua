-- Makes a node the leader of a job, or keeps it so: one node does a job at a time, until its leadership expires, or the
-- leader is registered no longer. Without the latter, what another program wrote there, or a leadership that a step of
-- the clock made longer, would keep the job undone for as long as it lives.
-- KEYS: fleet prefix
-- ARGV: job; node; time (ms)
-- Returns: 1 when this node leads, else 0
-- Publishes: nothing
local key = SHARD .. ':turn:' .. ARGV[1]
local leader = call('GET', key)
if leader and leader ~= ARGV[2] and call('HEXISTS', SHARD .. ':registry', leader) == 1 then return 0 end
redis.call('SET', key, ARGV[2], 'PX', ARGV[3])
return 1
