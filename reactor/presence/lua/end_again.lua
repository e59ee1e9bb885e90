-- Ends a member that Redis has again since it went back to an older state, though its departure was told. Who was
-- active later has come back: into the former joining, for Redis knew nothing of its end.
-- ARGV: room, user; joined_at (ms, of the joining that departed); reason; left_at (ms, of that departure)
-- Returns: 1 when it was there, else 0
-- Publishes: a diff (left)
local room, user, joined_at, reason, left_at = unpack(ARGV)
if redis.call('HGET', shadow_key(room, user), 'j') ~= joined_at then return 0 end
if tonumber(read_last_active(room, user) or 0) > tonumber(left_at) then return 0 end
depart(room, { user }, reason)
return 1
