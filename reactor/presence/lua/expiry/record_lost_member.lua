-- Records the departure of a member that was lost with Redis's data, while its last connection or its node was gone.
-- Whichever node comes first records it, once.
-- ARGV: room, user; username; reason; joined_at, last_active (ms)
-- Returns: the reason that is recorded now, or '' when the user is a member
-- Publishes: nothing
local room, user, username, reason, joined_at, last_active = unpack(ARGV)
local there = call('ZSCORE', members_key(room), user)
if there and call('HGET', shadow_key(room, user), 'j') == joined_at then return '' end
local room_id, user_id = unescape(room), unescape(user)
local known = recorded_reason(room_id, user_id, joined_at)
if known then return known end
record_departure(room_id, user_id, username, reason, joined_at, last_active, '')
return reason
