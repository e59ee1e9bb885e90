-- A node is no more: it stopped in order, or all its members were put under the grace.
-- KEYS: fleet prefix
-- ARGV: node
-- Returns: 1
-- Publishes: nothing
redis.call('HDEL', SHARD .. ':registry', ARGV[1])
redis.call('DEL', SHARD .. ':lease:' .. ARGV[1])
return 1
