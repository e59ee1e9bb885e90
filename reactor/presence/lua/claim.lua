-- The departure: for each member named, presence key gone and row still there. Whoever comes second finds nothing,
-- and a name that was taken by a fresh joining is left alone. While ends by time do not count, nothing is done: the
-- pacemaker and the sweep come by again.
-- ARGV: for each member: room, user
-- Returns: {now, then for each departed: suffix, reason, deadline noted}
-- Publishes: a diff (left) for each room
if held_until() then return { NOW } end
local by_room, order = {}, {}
for i = 1, #ARGV, 2 do
  local room, user = ARGV[i], ARGV[i + 1]
  if redis.call('EXISTS', presence_key(room, user)) == 0 then
    if not by_room[room] then
      by_room[room] = {}
      order[#order + 1] = room
    end
    table.insert(by_room[room], user)
  end
end
local reply = { NOW }
for _, room in ipairs(order) do
  local departed = depart(room, by_room[room])
  for i = 1, #departed, 3 do
    reply[#reply + 1] = room .. ':user:' .. departed[i]
    reply[#reply + 1] = departed[i + 1]
    reply[#reply + 1] = departed[i + 2]
  end
end
return reply
