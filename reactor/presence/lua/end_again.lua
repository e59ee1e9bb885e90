-- Ends a member that Redis has again since it went back to an older state, though its departure was told.
-- ARGV: room, user; joined_at (ms, of the joining that departed); reason
-- Returns: 1 when it was there, else 0
-- Publishes: a diff (left)
local room, user, joined_at, reason = unpack(ARGV)
if redis.call('HGET', shadow_key(room, user), 'j') ~= joined_at then return 0 end
depart(room, { user }, reason)
return 1
