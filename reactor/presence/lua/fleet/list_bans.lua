-- The bans that were made here and have not ended, the one that ends first in front.
-- KEYS: shard or fleet prefix
-- ARGV: score (ms), after, size (see lib/bans.lua)
-- Returns: {id, ends_at (ms), record (JSON, or '' where it was evicted), ...}
-- Publishes: nothing
local reply, listed = {}, list_bans(math.max(tonumber(ARGV[1]), now() + 1), ARGV[2], tonumber(ARGV[3]))
for i = 1, #listed, 2 do
  reply[#reply + 1] = listed[i]
  reply[#reply + 1] = listed[i + 1]
  reply[#reply + 1] = call('GET', ban_key(listed[i])) or ''
end
return reply
