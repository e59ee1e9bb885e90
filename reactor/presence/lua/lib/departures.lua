-- A departure happens exactly once: it is whatever removes the member's row from `members:ROOM`.

local EMPTY_ROOM_TTL = 60000 -- ms that an emptied room keeps its version, so that its last diff can still be placed

-- Appends a departure to the stream and counts it.
local function record_departure(room_id, user_id, username, reason, joined_at, last_active, node)
  redis.call('XADD', SHARD .. ':departures', 'MAXLEN', '~', DEPARTURES_KEPT, '*', 'room', room_id, 'user', user_id,
    'username', username, 'reason', reason, 'joinedAt', joined_at, 'lastActiveAt', last_active,
    'leftAt', now(), 'node', node)
  redis.call('HINCRBY', SHARD .. ':totals', reason, 1)
end

-- The reason recorded for the end of the membership that began at `joined_at`, among the newest entries; or nil.
local function recorded_reason(room_id, user_id, joined_at)
  for _, entry in ipairs(redis.call('XREVRANGE', SHARD .. ':departures', '+', '-', 'COUNT', 200)) do
    local fields = {}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    if fields.room == room_id and fields.user == user_id and fields.joinedAt == joined_at then return fields.reason end
  end
  return nil
end

-- Removes members of one room: both keys, every index, a stream entry each, one diff for all of them. A user without
-- a row is skipped. Without `reason` it is the one that the shadow holds, or else inactivity.
-- Returns the departed as {user, reason, stored deadline, ...}, flat.
local function remove_members(room, users, reason, message)
  local departed, left = {}, {}
  local members, room_id = members_key(room), unescape(room)
  for _, user in ipairs(users) do
    local deadline = redis.call('ZSCORE', members, user)
    if deadline then
      local presence = presence_key(room, user)
      local fields, connections = read_shadow(room, user)
      local last_active = read_last_active(room, user) or fields.a or fields.j or now()
      local why = reason or fields.r or 'inactivity_timeout'
      local node = fields.n or ''
      for connection in pairs(connections) do
        node = node_of(connection)
        remove_from_node(room, user, node)
      end
      redis.call('ZREM', members, user)
      redis.call('DEL', presence, shadow_key(room, user))
      local user_id = unescape(user)
      record_departure(room_id, user_id, fields.u or user_id, why, fields.j or now(), last_active, node)
      left[#left + 1] = { user_id, why, now(), message or '' }
      departed[#departed + 1] = user
      departed[#departed + 1] = why
      departed[#departed + 1] = deadline
    end
  end
  if #left > 0 then
    publish_diff(room, #left, {}, {}, left)
    if redis.call('EXISTS', members) == 0 then
      redis.call('ZREM', ROOMS, room)
      redis.call('PEXPIRE', state_key(room), EMPTY_ROOM_TTL)
    end
  end
  return departed
end

-- The member's last connection was lost: shortens its life to the grace (ms). Returns its deadline, or nil when the
-- grace is 0 and the member was removed.
local function start_grace(room, user, node, grace)
  if grace <= 0 then
    remove_members(room, { user }, 'disconnected')
    return nil
  end
  local presence, shadow = presence_key(room, user), shadow_key(room, user)
  redis.call('HSET', shadow, 'r', 'disconnected', 'n', node)
  if redis.call('EXISTS', presence) == 0 then return now() end -- expired already, and suspended
  redis.call('HSET', shadow, 'a', read_last_active(room, user) or now())
  redis.call('PEXPIREAT', presence, now() + grace, 'LT')
  local deadline = redis.call('PEXPIRETIME', presence)
  redis.call('ZADD', members_key(room), deadline, user)
  lower_room_deadline(room, deadline)
  return deadline
end
