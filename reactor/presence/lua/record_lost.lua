-- A member went with the data that Redis lost, in its grace or with its node, and its departure is to be told: it goes
-- on record, once, whoever of the nodes comes first.
-- ARGV: room, user; username; reason; joined_at, last_active (ms)
-- Returns: the reason that is on record now, or '' when the member is there
-- Publishes: nothing
local room, user, username, reason, joined_at, last_active = unpack(ARGV)
local there = redis.call('ZSCORE', members_key(room), user)
if there and redis.call('HGET', shadow_key(room, user), 'j') == joined_at then return '' end
local room_id, user_id = unescape(room), unescape(user)
local known = on_record(room_id, user_id, joined_at)
if known then return known end
record(room_id, user_id, username, reason, joined_at, last_active, '')
return reason
