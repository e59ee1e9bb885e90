-- Bans a user from a room, and removes the member with all its connections. A join that comes later is refused.
-- ARGV: room, user; ttl (ms); message ('' for the usual one); by ('' or who decided it); most (bans that may be
--       listed); made ('' or ms: repeats a ban of then, which Redis may have forgotten; what came later stays); age (ms
--       since the caller heard of that)
-- Returns: {'full', count} | {'outdated'} | {'banned', record (JSON), 1 where the user was a member, else 0}
-- Publishes: the record, behind a tilde; a diff (left)
demand_right_to_change()
local room, user, ttl, message, by, most, made, age = unpack(ARGV)
local id, listed = room_ban_id(room, user), call('ZCARD', BANS)
made = tonumber(made)
if made and is_outdated(id, made, ttl, age) then return { 'outdated' } end
if listed >= tonumber(most) and not call('ZSCORE', BANS, id) then return { 'full', listed } end
local record, ends_at = set_ban(id, unescape(room), unescape(user), ttl, message, by, made)
if settle_member(room, user) == 'gone' then return { 'banned', record, 0 } end
remove_members(room, { user }, 'banned', { message = message, ends_at = ends_at })
return { 'banned', record, 1 }
