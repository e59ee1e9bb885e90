-- Corrects what records say of rooms, by the presence keys: confirms joins, so that the rooms count from here on, notes
-- whether the user is away there, and the token where that of a join was stored that never came about. The first room
-- that counts brings a user online.
-- ARGV: for each member: user, room; token ('' for any: nothing is done where the record has another); new_token
--       ('' to keep it); away ('1' or '0')
-- Returns: the place of each whose record lacks the room, counted from 1
-- Publishes: a change of each person whose status or rooms changed
demand_right_to_change()
local missing = {}
for i = 1, #ARGV, 5 do
  local user, room, token, new_token = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local stored = call('HMGET', person_key(SHARD, user), room, ':s')
  local present = split_token(stored[1] or '')
  if not stored[1] then
    missing[#missing + 1] = (i + 4) / 5
  elseif token == '' or token == present then
    count_room(SHARD, user, room, stored, new_token ~= '' and new_token or present, ARGV[i + 4] == '1')
  end
end
return missing
