-- The nodes that have, or had, a connection in this shard.
-- KEYS: shard prefix
-- ARGV: none
-- Returns: {node, ...}
-- Publishes: nothing
return call('SMEMBERS', NODES)
