-- The users of a shard who are online, with their records, in pages.
-- ARGV: cursor ('0' first); count (users a page, about)
-- Returns: {next cursor, then for each user: user, {field, value, ...}}
-- Publishes: nothing
local page = call('SSCAN', people_key(SHARD), ARGV[1], 'COUNT', ARGV[2])
local reply = { page[1] }
for _, user in ipairs(page[2]) do
  local fields = call('HGETALL', person_key(SHARD, user))
  if #fields == 0 then
    call('SREM', people_key(SHARD), user) -- the record was lost
  else
    reply[#reply + 1] = user
    reply[#reply + 1] = fields
  end
end
return reply
