-- The number of members of a room, exactly, and the room's position.
-- ARGV: room
-- Returns: {'again'} | {now, epoch, version, count}
-- Publishes: a diff (left) for what it settled
local room = ARGV[1]
if settle_room(room) then return { 'again' } end
local epoch, version, count = read_position(room)
return { now(), epoch, version, count }
