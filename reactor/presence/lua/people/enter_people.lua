-- Adds rooms to the records of users who are about to join them. They count once `correct_people` confirms the joins.
-- ARGV: for each member: user, room; token (of this join)
-- Returns: a text with a digit for each: 0 the room counted already, and nothing is to be confirmed; 1 the join is to
--          be confirmed; 2 the user was away in the room, which is to be verified
-- Publishes: nothing
demand_right_to_add()
local reply = {}
for i = 1, #ARGV, 3 do
  local user, room, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local person = person_key(SHARD, user)
  local found = call('HGET', person, room)
  local _, mark = split_token(found or JOINING_MARK)
  call('HSET', person, room, mark .. token)
  if not found then
    call('HINCRBY', person, ':u', 1)
    if call('HLEN', person) == 2 then call('SADD', people_key(SHARD), user) end
  end
  reply[#reply + 1] = mark == '' and '0' or mark == JOINING_MARK and '1' or '2'
end
return table.concat(reply)
