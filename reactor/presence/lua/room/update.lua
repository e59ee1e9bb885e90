-- Changes a member's username or data.
-- ARGV: room, user; username, data ('' keeps the stored one); patch ('' or a change of the data, RFC 7396); max_data
--       (bytes of the data that a patch may result in)
-- Returns: {'absent'} | {'too_big', bytes, read} | {'updated', now, epoch, version, diff or '', read}; read: bytes of
--          the data that a patch was merged into
-- Publishes: a diff (updated) where something changed
demand_right_to_change()
local room, user, username, data, patch, max_data = unpack(ARGV)
local presence = presence_key(room, user)
if settle_member(room, user) ~= 'alive' then return { 'absent' } end
local before = redis.call('HMGET', presence, 'username', 'data')
local read = patch ~= '' and before[2] and #before[2] or 0
if patch ~= '' then
  local readable, merged = pcall(merge_patch, before[2], patch)
  data = readable and merged or merge_patch(nil, patch) -- where the data was edited externally, and is not JSON
  if #data > tonumber(max_data) then return { 'too_big', #data, read } end
end
local changed = false
if username ~= '' and username ~= before[1] then
  redis.call('HSET', presence, 'username', username)
  call('HSET', shadow_key(room, user), 'u', username)
  changed = true
end
if data ~= '' and data ~= before[2] then
  redis.call('HSET', presence, 'data', data)
  changed = true
end
if not changed then
  local epoch, version = read_position(room)
  return { 'updated', now(), epoch, version, '', read }
end
local epoch, version, _, diff = publish_diff(room, 1, {}, { read_member(room, user) }, {})
return { 'updated', now(), epoch, version, diff, read }
