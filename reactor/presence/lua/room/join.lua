-- Joins a user to a room over one connection: as a new member, by a further connection, or back within the grace.
-- The room is settled first, so that the departure of an earlier membership that expired unnoticed is published.
-- ARGV: room, user (escaped); room_id, user_id (as they are); username, data ('' keeps the stored one); connection
--       (NODE.SEQUENCE); ttl (ms); max_members (0 for no limit); epoch ('' for a client that joins; else the
--       connection registers again: in that epoch, so a member that departed since stays departed, or in any epoch
--       for '*'. Then username and data are used only if Redis lost them); replaces ('' or the connection's former
--       name); away ('1' or '0'); joined_at ('' or ms: when the member had joined, where Redis lost it)
-- Returns: {'again'} | {'fenced'} (the node was judged lost) | {'full', count} | {'departed'} (or it was detached) |
--          {'joined' or 'resumed', now, epoch, version, count, joinedAt, diff or ''}
-- Publishes: a diff (joined or updated) where the member's visible fields changed
local room, user, room_id, user_id, username, data, connection = unpack(ARGV, 1, 7)
local ttl, max_members, known_epoch, replaces, away = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10], ARGV[11], ARGV[12]
local known_joined_at = ARGV[13]
local presence, shadow, members = presence_key(room, user), shadow_key(room, user), members_key(room)

if redis.call('EXISTS', fence_key(node_of(connection)), fence_key(connection)) > 0 then
  return { redis.call('EXISTS', fence_key(connection)) == 1 and 'departed' or 'fenced' }
end
if settle_room(room) then return { 'again' } end
local time = now()
local since = tonumber(known_joined_at) or time

local status = settle_member(room, user)
if status == 'gone' then
  if known_epoch ~= '' and redis.call('HGET', state_key(room), 'epoch') == known_epoch then return { 'departed' } end
  -- In another epoch Redis lost the member, or it has departed since: a recorded departure is not undone.
  if known_epoch ~= '' and known_epoch ~= '*' and known_joined_at ~= ''
    and recorded_reason(room_id, user_id, known_joined_at) then
    return { 'departed' }
  end
  local count = redis.call('ZCARD', members)
  if max_members > 0 and count >= max_members then return { 'full', count } end
  if count == 0 then redis.call('PERSIST', state_key(room)) end
  if username == '' then username = user_id end
  redis.call('HSET', presence, 'socketId', connection, 'userId', user_id, 'roomId', room_id, 'username', username,
    'lastActiveAt', time, 'joinedAt', since)
  redis.call('PEXPIREAT', presence, time + ttl)
  if data ~= '' then redis.call('HSET', presence, 'data', data) end
  if away == '1' then redis.call('HSET', presence, 'away', 1) end
  redis.call('HSET', shadow, 'u', username, 'j', since)
  add_connection(room, user, connection, away)
  redis.call('ZADD', members, time + ttl, user)
  lower_room_deadline(room, time + ttl)
  local epoch, version, total, diff = publish_diff(room, 1, { read_member(room, user) }, {}, {})
  return { 'joined', time, epoch, version, total, since, diff }
end

if status == 'suspended' then -- restored as if it had never expired; only its data is lost with the key
  local fields = read_shadow(room, user)
  if username == '' then username = fields.u or user_id end
  redis.call('HSET', presence, 'userId', user_id, 'roomId', room_id, 'username', fields.u or user_id,
    'joinedAt', fields.j or time)
  if data ~= '' then redis.call('HSET', presence, 'data', data) end
  redis.call('ZADD', members, time + ttl, user)
end
-- The membership that is registered again may be another than Redis holds: Redis went back to before its end, or lost
-- it, and the user joined over another connection before this one could register.
local other = false
if known_epoch ~= '' and known_joined_at ~= '' then
  local known = tonumber(redis.call('HGET', shadow, 'j')) or since
  other = since > known or (since < known and not recorded_reason(room_id, user_id, known_joined_at))
end
if other then
  redis.call('HSET', presence, 'joinedAt', since)
  redis.call('HSET', shadow, 'j', since)
end
redis.call('HSET', presence, 'socketId', connection, 'lastActiveAt', time)
redis.call('PEXPIREAT', presence, time + ttl)
-- Where the TTL was shortened since, the deadline is earlier than the stored one.
if redis.call('ZADD', members, 'LT', 'CH', time + ttl, user) == 1 then lower_room_deadline(room, time + ttl) end
redis.call('HDEL', shadow, 'r', 'n')
local _, connections, count = read_shadow(room, user)
-- A member that comes back within the grace stays away until it says that it is back.
if count == 0 and known_epoch == '' and redis.call('HEXISTS', presence, 'away') == 1 then away = '1' end
add_connection(room, user, connection, away)
connections[connection] = away
if replaces ~= '' then remove_connection(room, user, replaces, connections) end
-- A list made while the member was suspended lacks it, so its return is published.
local changed = update_visible_fields(room, user, connections) or status == 'suspended' or other
local visible = redis.call('HMGET', presence, 'username', 'data')
if known_epoch ~= '' then username, data = '', '' end
if username ~= '' and username ~= visible[1] then
  redis.call('HSET', presence, 'username', username)
  redis.call('HSET', shadow, 'u', username)
  changed = true
end
if data ~= '' and data ~= visible[2] then
  redis.call('HSET', presence, 'data', data)
  changed = true
end
local joined_at = tonumber(redis.call('HGET', presence, 'joinedAt')) or time
if changed then
  local epoch, version, total, diff = publish_diff(room, 1, {}, { read_member(room, user) }, {})
  return { 'resumed', time, epoch, version, total, joined_at, diff }
end
local epoch, version, total = read_position(room)
return { 'resumed', time, epoch, version, total, joined_at, '' }
