-- Removes rooms from the records of users, after departures and joins that were refused. The last one that counts takes
-- a user offline. A room with another token belongs to a later join, or to one that never came about.
-- ARGV: keep (ms for which it is kept when users were last seen; 0 for not at all); then for each member: user, room;
--       tokens (of the joins to the membership that has ended, between spaces); last_active (ms; '' for a join that was
--       refused)
-- Returns: for each room with another token: the place of the departure, counted from 1; that token
-- Publishes: a change of each person
demand_right_to_change()
local reply, keep = {}, tonumber(ARGV[1])
local exits = {}
for i = 2, #ARGV, 4 do exits[#exits + 1] = { ARGV[i + 1], ARGV[i], ARGV[i + 2], ARGV[i + 3], #exits + 1 } end
local by_user, order = exits_by_user(exits)
for _, user in ipairs(order) do
  for _, other in ipairs(remove_rooms(SHARD, user, by_user[user], keep)) do
    reply[#reply + 1] = other[1][5]
    reply[#reply + 1] = other[2]
  end
end
write_ends(keep)
return reply
