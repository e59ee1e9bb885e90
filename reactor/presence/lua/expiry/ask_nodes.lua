-- Where Redis may evict keys, asks the nodes for members that were found gone: before they are claimed, where no event
-- said that they expired, or shown as departed, where no departure is on record. The node that has a member's
-- connection, with a heartbeat within its TTL, registers it again.
-- ARGV: for each member: room, user
-- Returns: 1 when the nodes were asked, 0 when Redis evicts nothing
-- Publishes: `?` and the member's suffix, on the channel for wake-ups
if not may_evict() then return 0 end
for i = 1, #ARGV, 2 do
  local room, user = ARGV[i], ARGV[i + 1]
  if redis.call('EXISTS', presence_key(room, user)) == 0 or not call('ZSCORE', members_key(room), user) then
    redis.call(PUBLISH, CHANNELS .. ':wake', MISSING_MARK .. room .. ':user:' .. user)
  end
end
return 1
