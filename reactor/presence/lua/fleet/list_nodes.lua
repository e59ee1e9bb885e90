-- The nodes in the registry.
-- KEYS: fleet prefix
-- ARGV: none
-- Returns: {node, 'COUNTER ABOUT', ...}
-- Publishes: nothing
return redis.call('HGETALL', SHARD .. ':registry')
