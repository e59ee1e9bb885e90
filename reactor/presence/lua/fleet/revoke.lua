-- Records up to which time the tokens of users were revoked, and notifies all nodes. A later time replaces an
-- earlier one.
-- KEYS: fleet prefix
-- ARGV: most (users that may be listed); then for each member: user, time (ms; '' for now, as is one that is to come)
-- Returns: {'full', count} | {'revoked', the first user's time (ms) that holds}
-- Publishes: {time, user, ...} of what changed, behind a caret
local revoked, changed, holds = SHARD .. ':revoked', {}, nil
for i = 2, #ARGV, 2 do
  local user, time = ARGV[i], math.min(tonumber(ARGV[i + 1]) or now(), now())
  local known = call('ZSCORE', revoked, user)
  if not known then
    local listed = call('ZCARD', revoked)
    if listed >= tonumber(ARGV[1]) then return { 'full', listed } end
  end
  holds = holds or math.max(time, tonumber(known or 0))
  if not known or tonumber(known) < time then
    call('ZADD', revoked, time, user)
    changed[#changed + 1] = string.format('%.0f %s', time, user)
  end
end
if #changed > 0 then
  redis.call(PUBLISH, CHANNELS .. ':wake', REVOKED_MARK .. table.concat(changed, ' '))
end
return { 'revoked', holds }
