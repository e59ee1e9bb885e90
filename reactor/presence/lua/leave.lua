-- A connection leaves the room by its own will; with the last one the member is gone at once.
-- ARGV: room, user; connection
-- Returns: {'absent'} | {'kept', now} | {'left', now}
-- Publishes: a diff (left, or updated while other connections remain)
local room, user, connection = unpack(ARGV)
if settle_member(room, user) == 'gone' then return { 'absent' } end
local _, connections, count = read_shadow(room, user)
if not connections[connection] and count > 0 then return { 'kept', NOW } end
if count > 1 then
  forget_connection(room, user, connection, connections)
  if reflect(room, user, connections) then tell(room, 1, {}, { read_member(room, user) }, {}) end
  return { 'kept', NOW }
end
depart(room, { user }, 'left')
return { 'left', NOW }
