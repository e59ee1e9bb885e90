-- The records of users: of those who have one all fields, of the others when they were last seen.
-- ARGV: for each member: user
-- Returns: for each: {field, value, ...} | a time (ms) | '' for a user who is not on record
-- Publishes: nothing
local reply = {}
for i = 1, #ARGV, 1 do
  local person = person_key(SHARD, ARGV[i])
  local fields = call('HGETALL', person)
  if #fields == 0 then
    reply[i] = call('ZSCORE', seen_key(SHARD), ARGV[i]) or ''
  else
    -- A user whose joins are all unconfirmed is offline.
    local seen = call('HEXISTS', person, ':s') == 0 and call('ZSCORE', seen_key(SHARD), ARGV[i])
    if seen then
      fields[#fields + 1] = ':l'
      fields[#fields + 1] = seen
    end
    reply[i] = fields
  end
end
return reply
