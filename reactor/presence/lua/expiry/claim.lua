-- Claims departures: removes each named member whose presence key is gone and whose row is still there. A second claim
-- finds nothing, and a member that joined anew is left alone. While expiry is suspended nothing is done; the
-- pacemaker and the sweep try again.
-- ARGV: for each member: room, user
-- Returns: {now, then for each departed: suffix, reason, stored deadline}
-- Publishes: a diff (left) for each room
if expiry_suspended_until() then return { now() } end
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
local reply = { now() }
for _, room in ipairs(order) do
  local departed = remove_members(room, by_room[room])
  for i = 1, #departed, 3 do
    reply[#reply + 1] = room .. ':user:' .. departed[i]
    reply[#reply + 1] = departed[i + 1]
    reply[#reply + 1] = departed[i + 2]
  end
end
return reply
