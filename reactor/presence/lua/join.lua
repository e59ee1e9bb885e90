-- A user comes into a room over one connection: as a new member, by one more connection, or back within the grace.
-- A previous joining that lapsed unnoticed is settled first, so that its departure is told and not eaten.
-- ARGV: room, user (escaped); room_id, user_id (as they are); username, data ('' keeps what is there); connection
--       (NODE.SEQUENCE); ttl (ms); max_members (0 for no limit); epoch ('' for a client that joins; else the
--       connection was in already: in that epoch, so a member that departed since stays departed, or in whatever
--       epoch for '*'. Then username and data only stand in for what Redis lost); replaces ('' or the connection's
--       former name); away ('1' or '0'); joined_at ('' or ms: when the member had joined, where Redis
--       lost it)
-- Returns: {'again'} | {'fenced'} (the node was judged lost) | {'full', count} | {'departed'} (or it was let go of) |
--          {'joined' or 'resumed', now, epoch, version, count, joinedAt, diff or ''}
-- Publishes: a diff (joined or updated) where the member's face changed
local room, user, room_id, user_id, username, data, connection = unpack(ARGV, 1, 7)
local ttl, max_members, known_epoch, replaces, away = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10], ARGV[11], ARGV[12]
local since = tonumber(ARGV[13]) or NOW
local presence, shadow, members = presence_key(room, user), shadow_key(room, user), members_key(room)

if redis.call('EXISTS', fenced_key(node_of(connection)), fenced_key(connection)) > 0 then
  return { redis.call('EXISTS', fenced_key(connection)) == 1 and 'departed' or 'fenced' }
end
if settle(room) then return { 'again' } end

local status = settle_member(room, user)
if status == 'gone' then
  if known_epoch ~= '' and redis.call('HGET', state_key(room), 'epoch') == known_epoch then return { 'departed' } end
  -- In another epoch it was lost, or it has departed since: of what is on record nothing is made undone.
  if known_epoch ~= '' and known_epoch ~= '*' and ARGV[13] ~= '' and on_record(room_id, user_id, ARGV[13]) then
    return { 'departed' }
  end
  local count = redis.call('ZCARD', members)
  if max_members > 0 and count >= max_members then return { 'full', count } end
  if count == 0 then redis.call('PERSIST', state_key(room)) end
  if username == '' then username = user_id end
  redis.call('HSET', presence, 'socketId', connection, 'userId', user_id, 'roomId', room_id, 'username', username,
    'lastActiveAt', NOW, 'joinedAt', since)
  redis.call('PEXPIREAT', presence, NOW + ttl)
  if data ~= '' then redis.call('HSET', presence, 'data', data) end
  if away == '1' then redis.call('HSET', presence, 'away', 1) end
  redis.call('HSET', shadow, 'u', username, 'j', since)
  remember_connection(room, user, connection, away)
  redis.call('ZADD', members, NOW + ttl, user)
  lower(room, NOW + ttl)
  local epoch, version, total, diff = tell(room, 1, { read_member(room, user) }, {}, {})
  return { 'joined', NOW, epoch, version, total, since, diff }
end

if status == 'held' then -- as if it had never lapsed; only the data went with the key
  local fields = read_shadow(room, user)
  if username == '' then username = fields.u or user_id end
  redis.call('HSET', presence, 'userId', user_id, 'roomId', room_id, 'username', fields.u or user_id,
    'joinedAt', fields.j or NOW)
  if data ~= '' then redis.call('HSET', presence, 'data', data) end
  redis.call('ZADD', members, NOW + ttl, user)
end
-- The joining that is entered again is another one than Redis has: Redis went back to before its end, or lost it, and
-- the user came over another socket before this one could say that it has been here all the while.
local other = false
if known_epoch ~= '' and ARGV[13] ~= '' then
  local known = tonumber(redis.call('HGET', shadow, 'j')) or since
  other = since > known or (since < known and not on_record(room_id, user_id, ARGV[13]))
end
if other then
  redis.call('HSET', presence, 'joinedAt', since)
  redis.call('HSET', shadow, 'j', since)
end
redis.call('HSET', presence, 'socketId', connection, 'lastActiveAt', NOW)
redis.call('PEXPIREAT', presence, NOW + ttl)
-- A ttl that was set shorter meanwhile is nearer than what was noted.
if redis.call('ZADD', members, 'LT', 'CH', NOW + ttl, user) == 1 then lower(room, NOW + ttl) end
redis.call('HDEL', shadow, 'r', 'n')
local _, connections, count = read_shadow(room, user)
-- Who comes back within the grace is what it was: away, until it says that it is back.
if count == 0 and known_epoch == '' and redis.call('HEXISTS', presence, 'away') == 1 then away = '1' end
remember_connection(room, user, connection, away)
connections[connection] = away
if replaces ~= '' then forget_connection(room, user, replaces, connections) end
-- Whoever listed the room meanwhile did not see one that was held.
local changed = reflect(room, user, connections) or status == 'held' or other
local face = redis.call('HMGET', presence, 'username', 'data')
if known_epoch ~= '' then username, data = '', '' end
if username ~= '' and username ~= face[1] then
  redis.call('HSET', presence, 'username', username)
  redis.call('HSET', shadow, 'u', username)
  changed = true
end
if data ~= '' and data ~= face[2] then
  redis.call('HSET', presence, 'data', data)
  changed = true
end
local joined_at = tonumber(redis.call('HGET', presence, 'joinedAt')) or NOW
if changed then
  local epoch, version, total, diff = tell(room, 1, {}, { read_member(room, user) }, {})
  return { 'resumed', NOW, epoch, version, total, joined_at, diff }
end
local epoch, version, total = position(room)
return { 'resumed', NOW, epoch, version, total, joined_at, '' }
