-- Of users that are not listed in a room, those whose departure is still to come: they lapsed, and their row is there.
-- ARGV: room; then for each member: user
-- Returns: {user, ...}
-- Publishes: nothing
local members, found = members_key(ARGV[1]), {}
for i = 2, #ARGV, 1 do
  if redis.call('ZSCORE', members, ARGV[i]) then found[#found + 1] = ARGV[i] end
end
return found
