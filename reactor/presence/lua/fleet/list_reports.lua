-- The nodes in the registry with their latest reports, and how long each is still kept.
-- KEYS: fleet prefix
-- ARGV: none
-- Returns: {node, report (JSON) or '', time (ms), ...}
-- Publishes: nothing
local reply, flat = {}, call('HGETALL', SHARD .. ':registry')
for i = 1, #flat, 2 do
  local key = SHARD .. ':report:' .. flat[i]
  reply[#reply + 1] = flat[i]
  reply[#reply + 1] = call('GET', key) or ''
  reply[#reply + 1] = call('PEXPIRETIME', key) - now()
end
return reply
