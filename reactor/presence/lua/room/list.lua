-- The members of a room, exactly: it is settled first. A large room comes in pages; a member that stays throughout is
-- on one of them (https://redis.io/docs/latest/commands/scan/#scan-guarantees), and the diffs after the first page's
-- version supply the rest.
-- ARGV: room; cursor ('0' first); size (rows a page, about)
-- Returns: {'again'} | {now, epoch, version, count, next cursor, then MEMBER_FIELDS of each member in a row}
-- Publishes: a diff (left) for what it settled
local room, cursor, size = unpack(ARGV)
if cursor == '0' and settle_room(room) then return { 'again' } end
local page = call('ZSCAN', members_key(room), cursor, 'COUNT', size)
local epoch, version, count = read_position(room)
local reply = { now(), epoch, version, count, page[1] }
for i = 1, #page[2], 2 do
  local member = read_member(room, page[2][i])
  if member then
    for field = 1, #MEMBER_FIELDS do reply[#reply + 1] = member[field] end
  end
end
return reply
