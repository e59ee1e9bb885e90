-- Removes a member that Redis holds again after it went back to an older state, although its departure was published.
-- A member that was active after that departure came back: into the former membership, since Redis had forgotten its
-- end.
-- ARGV: room, user; joined_at (ms, of the membership that ended); reason; left_at (ms, of that departure)
-- Returns: 1 when the member was removed, else 0
-- Publishes: a diff (left)
demand_right_to_change()
local room, user, joined_at, reason, left_at = unpack(ARGV)
if call('HGET', shadow_key(room, user), 'j') ~= joined_at then return 0 end
if tonumber(read_last_active(room, user) or 0) > tonumber(left_at) then return 0 end
remove_members(room, { user }, reason, { at = tonumber(left_at) })
return 1
