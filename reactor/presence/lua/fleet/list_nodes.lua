-- The nodes in the registry.
-- KEYS: fleet prefix
-- ARGV: none
-- Returns: {node, 'COUNTER ABOUT', ...}
-- Publishes: nothing
return call('HGETALL', SHARD .. ':registry')
