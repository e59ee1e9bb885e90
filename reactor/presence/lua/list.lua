-- Who is in the room, exactly: members whose noted deadline has passed are settled first. A large room comes in pages;
-- who is there throughout is on one of them (https://redis.io/docs/latest/commands/scan/#scan-guarantees), and diffs
-- newer than the first page's version make up for the rest.
-- ARGV: room; cursor ('0' first); size (rows a page, about)
-- Returns: {'again'} | {now, epoch, version, count, next cursor, then each member's seven fields in a row}
-- Publishes: a diff (left) for what it settled
local room, cursor, size = unpack(ARGV)
if cursor == '0' and settle(room) then return { 'again' } end
local page = redis.call('ZSCAN', members_key(room), cursor, 'COUNT', size)
local epoch, version, count = position(room)
local reply = { NOW, epoch, version, count, page[1] }
for i = 1, #page[2], 2 do
  local member = read_member(room, page[2][i])
  if member then
    for field = 1, 7 do reply[#reply + 1] = member[field] end
  end
end
return reply
