-- The nodes of the fleet.
-- KEYS: fleet prefix
-- ARGV: none
-- Returns: {node, 'COUNTER ABOUT', ...}
-- Publishes: nothing
return redis.call('HGETALL', SHARD .. ':registry')
