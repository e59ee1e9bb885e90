-- A member went with the data that Redis lost, in its grace or with its node, and its departure is told: it goes on
-- record, once, whoever of the nodes comes first.
-- ARGV: room, user; username; reason; joined_at, last_active (ms)
-- Returns: 1 when it was put on record, 0 when it was before, or when the member is there
-- Publishes: nothing
local room, user, username, reason, joined_at, last_active = unpack(ARGV)
if redis.call('HGET', shadow_key(room, user), 'j') == joined_at then return 0 end
local room_id, user_id = unescape(room), unescape(user)
if on_record(room_id, user_id, joined_at) then return 0 end
record(room_id, user_id, username, reason, joined_at, last_active, '')
return 1
