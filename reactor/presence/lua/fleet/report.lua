-- Stores a node's report about itself, for the fleet's overview.
-- KEYS: fleet prefix
-- ARGV: node; report (JSON); time (ms; how long it is kept)
-- Returns: 1
-- Publishes: nothing
redis.call('SET', SHARD .. ':report:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
return 1
