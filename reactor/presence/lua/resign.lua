-- A node is no more: it stopped in order, or all its members were put under the grace. What it had the turn of is
-- anybody's at once.
-- KEYS: fleet prefix
-- ARGV: node
-- Returns: 1
-- Publishes: nothing
redis.call('HDEL', SHARD .. ':registry', ARGV[1])
redis.call('DEL', SHARD .. ':lease:' .. ARGV[1])
for _, job in ipairs({ 'pacemaker', 'sweep', 'webhooks' }) do
  local turn = SHARD .. ':turn:' .. job
  if redis.call('GET', turn) == ARGV[1] then redis.call('DEL', turn) end
end
return 1
