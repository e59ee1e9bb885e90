-- The rooms of a shard with their sizes, in pages.
-- ARGV: cursor ('0' first); count (rooms a page, about)
-- Returns: {next cursor, then for each room: room, members}
-- Publishes: nothing
local page = call('ZSCAN', ROOMS, ARGV[1], 'COUNT', ARGV[2])
local reply = { page[1] }
for i = 1, #page[2], 2 do
  reply[#reply + 1] = page[2][i]
  reply[#reply + 1] = call('ZCARD', members_key(page[2][i]))
end
return reply
