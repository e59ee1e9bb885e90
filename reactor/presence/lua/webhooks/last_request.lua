-- What the last request to an endpoint was made of.
-- KEYS: fleet prefix
-- ARGV: endpoint
-- Returns: request (JSON, '' where there is none)
-- Publishes: nothing
return call('HGET', SHARD .. ':requests', ARGV[1]) or ''
