-- The sweep's audit of some rooms: whether every member's presence key exists. EXISTS touches what it counts, so that
-- expired keys are deleted here at the latest; keys that were deleted externally or evicted are found no other way.
-- ARGV: cursor ('0' first); count (rooms a page, about)
-- Returns: {next cursor, {room that was too large for this call, ...}, {suffix of a member found gone, ...}}
-- Publishes: nothing
local page = call('ZSCAN', ROOMS, ARGV[1], 'COUNT', ARGV[2])
local large, gone, rows = {}, {}, 0
for i = 1, #page[2], 2 do
  local room = page[2][i]
  local size = call('ZCARD', members_key(room))
  if rows + size > MAX_ROWS then
    large[#large + 1] = room
  else
    rows = rows + size
    collect_gone(room, call('ZRANGE', members_key(room), 0, -1), 1, gone)
  end
end
return { page[1], large, gone }
