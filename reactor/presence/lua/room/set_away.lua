-- A connection goes to the background or comes back. A member is away while all its connections are.
-- ARGV: room, user; connection; away ('1' or '0')
-- Returns: {'absent'} | {'ok', now, diff or ''}
-- Publishes: a diff (updated) where the member's visible fields changed
local room, user, connection, away = unpack(ARGV)
if settle_member(room, user) ~= 'alive' then return { 'absent' } end
local _, connections = read_shadow(room, user)
if not connections[connection] then return { 'absent' } end
redis.call('HSET', shadow_key(room, user), connection, away)
connections[connection] = away
local diff = ''
if update_visible_fields(room, user, connections) then
  local _, _, _, published = publish_diff(room, 1, {}, { read_member(room, user) }, {})
  diff = published
end
return { 'ok', now(), diff }
