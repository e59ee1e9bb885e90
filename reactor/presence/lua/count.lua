-- How many are in the room, exactly, and the room's position.
-- ARGV: room
-- Returns: {'again'} | {now, epoch, version, count}
-- Publishes: a diff (left) for what it settled
local room = ARGV[1]
if settle(room) then return { 'again' } end
local epoch, version, count = position(room)
return { NOW, epoch, version, count }
