-- The members of rooms with the tokens of their joins in the index of people, in pages. A member without one, which
-- joined where the index was off, gets one.
-- ARGV: token (for members without one); count (members a page, about); then for each member: room; cursor ('0' first)
-- Returns: for each room: {next cursor, then for each member: user, tokens}
-- Publishes: nothing
demand_right_to_change()
local reply = {}
for i = 3, #ARGV, 2 do
  local room = ARGV[i]
  local page = call('ZSCAN', members_key(room), ARGV[i + 1], 'COUNT', ARGV[2])
  local found = { page[1] }
  for j = 1, #page[2], 2 do
    local user = page[2][j]
    local shadow = shadow_key(room, user)
    local tokens = call('HGET', shadow, 'p')
    if not tokens and redis.call('EXISTS', presence_key(room, user), shadow) == 2 then
      tokens = ARGV[1]
      call('HSET', shadow, 'p', tokens)
    end
    if tokens then
      found[#found + 1] = user
      found[#found + 1] = tokens
    end
  end
  reply[#reply + 1] = found
end
return reply
