-- Which rooms the records of users lack, or hold without a confirmed join. A record that the set of the users with a
-- record lacks is added to it.
-- ARGV: for each member: user, room
-- Returns: the place of each that is missing, counted from 1
-- Publishes: nothing
demand_right_to_change()
local missing = {}
for i = 1, #ARGV, 2 do
  local person = person_key(SHARD, ARGV[i])
  local found = call('HGET', person, ARGV[i + 1])
  if found then call('SADD', people_key(SHARD), ARGV[i]) end
  local _, mark = split_token(found or JOINING_MARK)
  if mark == JOINING_MARK then missing[#missing + 1] = (i + 1) / 2 end
end
return missing
