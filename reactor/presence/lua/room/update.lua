-- Changes a member's username or data.
-- ARGV: room, user; username, data ('' keeps the stored one)
-- Returns: {'absent'} | {'updated', now, epoch, version, diff or ''}
-- Publishes: a diff (updated) where something changed
local room, user, username, data = unpack(ARGV)
local presence = presence_key(room, user)
if settle_member(room, user) ~= 'alive' then return { 'absent' } end
local before = redis.call('HMGET', presence, 'username', 'data')
local changed = false
if username ~= '' and username ~= before[1] then
  redis.call('HSET', presence, 'username', username)
  redis.call('HSET', shadow_key(room, user), 'u', username)
  changed = true
end
if data ~= '' and data ~= before[2] then
  redis.call('HSET', presence, 'data', data)
  changed = true
end
if not changed then
  local epoch, version = read_position(room)
  return { 'updated', now(), epoch, version, '' }
end
local epoch, version, _, diff = publish_diff(room, 1, {}, { read_member(room, user) }, {})
return { 'updated', now(), epoch, version, diff }
