-- Whether a shard holds anything that nodes keep up to date.
-- KEYS: shard prefix
-- ARGV: none
-- Returns: 1 or 0
-- Publishes: nothing
return math.min(1, redis.call('EXISTS', NODES, ROOMS, SHARD .. ':pulse'))
