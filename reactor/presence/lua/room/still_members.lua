-- Of members that a list of the room lacks, those whose membership has not ended: they are suspended, or were restored
-- since. A later membership of the same user is another one.
-- ARGV: room; then for each member: user, joined_at (ms)
-- Returns: {user, ...}
-- Publishes: nothing
local room, found = ARGV[1], {}
for i = 2, #ARGV, 2 do
  local user, joined_at = ARGV[i], ARGV[i + 1]
  if call('ZSCORE', members_key(room), user) and call('HGET', shadow_key(room, user), 'j') == joined_at then
    found[#found + 1] = user
  end
end
return found
