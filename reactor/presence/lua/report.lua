-- A node tells how it is, for people who look at the fleet.
-- KEYS: fleet prefix
-- ARGV: node; report (JSON); time (ms; it is news for so long)
-- Returns: 1
-- Publishes: nothing
redis.call('SET', SHARD .. ':report:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
return 1
