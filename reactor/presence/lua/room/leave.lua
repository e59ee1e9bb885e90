-- A connection leaves the room by request; with a member's last connection the member is removed at once. Where Redis
-- lost the member together with its data, the departure is recorded all the same.
-- ARGV: room, user; connection; known_epoch (in which it was a member), username, joined_at (ms, or '')
-- Returns: {'absent'} | {'kept', now} | {'left', now}
-- Publishes: a diff (left, or updated while other connections remain)
local room, user, connection, known_epoch, username, joined_at = unpack(ARGV)
if settle_member(room, user) == 'gone' then
  local lost = redis.call('HGET', state_key(room), 'epoch') ~= known_epoch or expiry_suspended_until()
  local room_id, user_id = unescape(room), unescape(user)
  if (joined_at or '') ~= '' and lost and not recorded_reason(room_id, user_id, joined_at) then
    record_departure(room_id, user_id, username, 'left', joined_at, now(), node_of(connection))
  end
  return { 'absent' }
end
local _, connections, count = read_shadow(room, user)
if not connections[connection] and count > 0 then return { 'kept', now() } end
if count > 1 then
  remove_connection(room, user, connection, connections)
  if update_visible_fields(room, user, connections) then publish_diff(room, 1, {}, { read_member(room, user) }, {}) end
  return { 'kept', now() }
end
remove_members(room, { user }, 'left')
return { 'left', now() }
