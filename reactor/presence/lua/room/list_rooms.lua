-- The shard's rooms with their counts, in pages. Each room is settled first.
-- ARGV: cursor ('0' first); count (rooms a page, about)
-- Returns: {next cursor, then for each room: room, count}
-- Publishes: diffs (left) for what it settled
local page = call('ZSCAN', ROOMS, ARGV[1], 'COUNT', ARGV[2])
local reply = { page[1] }
for i = 1, #page[2], 2 do
  local room = page[2][i]
  settle_room(room)
  local _, _, count = read_position(room)
  if count > 0 then
    reply[#reply + 1] = room
    reply[#reply + 1] = count
  end
end
return reply
