-- Removes a member with all its connections.
-- ARGV: room, user; message ('' for the usual one); reason ('' for kicked);
--       ends_at (ms, of a ban; or 0)
-- Returns: 1 when the user was a member, else 0; and where the ban has ended meanwhile
-- Publishes: a diff (left)
demand_right_to_change()
local room, user, message, reason, ends_at = unpack(ARGV)
ends_at = tonumber(ends_at)
local ended = ends_at and ends_at > 0 and now() >= ends_at
if ended or settle_member(room, user) == 'gone' then return 0 end
remove_members(room, { user }, (reason or '') ~= '' and reason or 'kicked',
  { message = message, ends_at = ends_at })
return 1
