-- Removes a member with all its connections.
-- ARGV: room, user; message ('' for the usual one)
-- Returns: 1 when the user was a member, else 0
-- Publishes: a diff (left)
local room, user, message = unpack(ARGV)
if settle_member(room, user) == 'gone' then return 0 end
remove_members(room, { user }, 'kicked', message)
return 1
