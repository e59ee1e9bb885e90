-- A connection leaves the room by its own will; with the last one the member is gone at once. Where Redis lost it with
-- its data just before, the departure goes on record all the same.
-- ARGV: room, user; connection; known_epoch (in which it was there), username, joined_at (ms, or '')
-- Returns: {'absent'} | {'kept', now} | {'left', now}
-- Publishes: a diff (left, or updated while other connections remain)
local room, user, connection, known_epoch, username, joined_at = unpack(ARGV)
if settle_member(room, user) == 'gone' then
  local lost = redis.call('HGET', state_key(room), 'epoch') ~= known_epoch or held_until()
  local room_id, user_id = unescape(room), unescape(user)
  if (joined_at or '') ~= '' and lost and not on_record(room_id, user_id, joined_at) then
    record(room_id, user_id, username, 'left', joined_at, NOW, node_of(connection))
  end
  return { 'absent' }
end
local _, connections, count = read_shadow(room, user)
if not connections[connection] and count > 0 then return { 'kept', NOW } end
if count > 1 then
  forget_connection(room, user, connection, connections)
  if reflect(room, user, connections) then tell(room, 1, {}, { read_member(room, user) }, {}) end
  return { 'kept', NOW }
end
depart(room, { user }, 'left')
return { 'left', NOW }
