-- Is this user in the room now?
-- ARGV: room, user
-- Returns: 1 or 0
-- Publishes: a diff (left) where the member had lapsed
return settle_member(ARGV[1], ARGV[2]) == 'alive' and 1 or 0
