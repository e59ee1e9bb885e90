-- A member went with the data that Redis lost, in its grace or with its node, and its departure is told: it goes on
-- record, once, whoever of the nodes comes first.
-- ARGV: room, user; username; reason; joined_at, last_active (ms)
-- Returns: 1 when it was put on record, 0 when it was before, or when the member is there
-- Publishes: nothing
local room, user, username, reason, joined_at, last_active = unpack(ARGV)
if redis.call('HGET', shadow_key(room, user), 'j') == joined_at then return 0 end
local room_id, user_id = unescape(room), unescape(user)
for _, entry in ipairs(redis.call('XREVRANGE', SHARD .. ':departures', '+', '-', 'COUNT', 200)) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  if fields.room == room_id and fields.user == user_id and fields.joinedAt == joined_at then return 0 end
end
record(room_id, user_id, username, reason, joined_at, last_active, '')
return 1
