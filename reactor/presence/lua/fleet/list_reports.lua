-- The nodes in the registry with their latest reports.
-- KEYS: fleet prefix
-- ARGV: none
-- Returns: {node, report (JSON) or '', ...}
-- Publishes: nothing
local reply, flat = {}, redis.call('HGETALL', SHARD .. ':registry')
for i = 1, #flat, 2 do
  reply[#reply + 1] = flat[i]
  reply[#reply + 1] = redis.call('GET', SHARD .. ':report:' .. flat[i]) or ''
end
return reply
