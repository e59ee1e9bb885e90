-- Removes a node from the registry: it stopped in order, or all its members were detached. Any leadership that it held
-- is free at once.
-- KEYS: fleet prefix
-- ARGV: node
-- Returns: 1
-- Publishes: nothing
call('HDEL', SHARD .. ':registry', ARGV[1])
redis.call('DEL', SHARD .. ':lease:' .. ARGV[1])
for _, job in ipairs({ 'pacemaker', 'sweep', 'webhooks' }) do
  local leader = SHARD .. ':turn:' .. job
  if call('GET', leader) == ARGV[1] then redis.call('DEL', leader) end
end
return 1
