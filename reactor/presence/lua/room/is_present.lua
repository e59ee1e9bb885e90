-- Whether the user is in the room now.
-- ARGV: room, user
-- Returns: 1 or 0
-- Publishes: a diff (left) where the member had expired
return settle_member(ARGV[1], ARGV[2]) == 'alive' and 1 or 0
