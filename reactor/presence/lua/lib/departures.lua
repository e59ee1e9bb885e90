-- A departure happens exactly once: it is whatever removes the member's row from `members:ROOM`.

local EMPTY_ROOM_TTL = 60000 -- ms that an emptied room keeps its version, so that its last diff can still be placed

local function count_departures(reason, count) call('HINCRBY', SHARD .. ':totals', reason, count) end

-- Appends a departure to the stream; the caller counts it. at: when it happened (ms), if it is not now.
local function append_departure(room_id, user_id, username, reason, joined_at, last_active, node, at)
  call('XADD', SHARD .. ':departures', 'MAXLEN', '~', DEPARTURES_KEPT, '*', 'room', room_id, 'user', user_id,
    'username', username, 'reason', reason, 'joinedAt', joined_at, 'lastActiveAt', last_active,
    'leftAt', digits(at or now()), 'node', node)
end

-- Appends a departure to the stream and counts it.
local function record_departure(room_id, user_id, username, reason, joined_at, last_active, node)
  append_departure(room_id, user_id, username, reason, joined_at, last_active, node)
  count_departures(reason, 1)
end

-- The reason recorded for the end of the membership that began at `joined_at`, among the newest entries; or nil.
local function recorded_reason(room_id, user_id, joined_at)
  for _, entry in ipairs(call('XREVRANGE', SHARD .. ':departures', '+', '-', 'COUNT', 200)) do
    local fields = {}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    if fields.room == room_id and fields.user == user_id and fields.joinedAt == joined_at then return fields.reason end
  end
  return nil
end

-- Removes members of one room: both keys, every index, a stream entry each, one diff for all of them, and a note for a
-- client that returns. A user without a row is skipped. Without `reason` it is the one that the shadow holds, or else
-- inactivity. `given` may hold `message`; `at` (ms), if it is not now; `ends_at` (ms), when a ban ends; and what the
-- caller has read already, by user: `deadlines` of those whose presence key is known to be gone, `shadows` as {fields,
-- connections}, and `active`, the last activity; and `exits`, to which the departures are appended that the caller
-- takes into the index of people. What all members of the room share is written once for all of them.
-- Returns the departed as {user, reason, stored deadline, ...}, flat.
local function remove_members(room, users, reason, given)
  given = given or {}
  local deadlines, shadows, at, message = given.deadlines, given.shadows, given.at or now(), given.message or ''
  local departed, left, removals, keys, rows, exits = {}, {}, {}, {}, {}, given.exits or {}
  local by_node, totals, active = {}, {}, given.active or {}
  local members, room_id = members_key(room), unescape(room)
  for _, user in ipairs(users) do
    local gone = deadlines and deadlines[user]
    local deadline = gone or call('ZSCORE', members, user)
    if deadline and not removals[user] then
      local shadow = shadows and shadows[user] or { read_shadow(room, user) }
      local fields, connections = shadow[1], shadow[2]
      local last_active = active[user] or not gone and read_last_active(room, user) or fields.a or fields.j or now()
      local why = reason or fields.r or 'inactivity_timeout'
      local node = fields.n or ''
      for connection in pairs(connections) do
        node = node_of(connection)
        by_node[node] = by_node[node] or {}
        table.insert(by_node[node], user)
      end
      rows[#rows + 1] = user
      keys[#keys + 1] = presence_key(room, user)
      keys[#keys + 1] = shadow_key(room, user)
      local user_id = unescape(user)
      append_departure(room_id, user_id, fields.u or user_id, why, fields.j or now(), last_active, node, at)
      totals[why] = (totals[why] or 0) + 1
      -- Without a token the index of people was off when the member joined.
      if fields.p then exits[#exits + 1] = { room, user, fields.p, why == 'left' and at or last_active } end
      left[#left + 1] = { user_id, why, at, message, given.ends_at }
      local joined_at = tonumber(fields.j) or now()
      removals[user] = { reason = why, message = message, at = at, joined_at = joined_at }
      departed[#departed + 1] = user
      departed[#departed + 1] = why
      departed[#departed + 1] = deadline
    end
  end
  if #left > 0 then
    if not given.exits then note_exits(exits) end
    for node, there in pairs(by_node) do remove_from_node(room, there, node) end
    call('ZREM', members, unpack(rows))
    redis.call('DEL', unpack(keys))
    for why, count in pairs(totals) do count_departures(why, count) end
    local epoch, version, total = publish_diff(room, #left, {}, {}, left)
    for user, removal in pairs(removals) do
      removal.epoch, removal.version = epoch, version
      note_removal(room, user, removal)
    end
    if total == 0 then
      call('ZREM', ROOMS, room)
      bounds[room] = nil
      redis.call('PEXPIRE', state_key(room), EMPTY_ROOM_TTL)
    end
  end
  return departed
end

-- The member's last connection was lost: shortens its life to the grace (ms). `last_active`: of the presence key,
-- or nil. Returns its deadline, or nil when the grace is 0 and the member was removed. deadlines: to which it appends
-- those that `store_deadlines` has to store, each as deadline and user.
local function start_grace(room, user, node, grace, last_active, deadlines)
  if grace <= 0 then
    remove_members(room, { user }, 'disconnected')
    return nil
  end
  local presence, shadow = presence_key(room, user), shadow_key(room, user)
  if not last_active then
    call('HSET', shadow, 'r', 'disconnected', 'n', node)
    if redis.call('EXISTS', presence) == 0 then return now() end -- expired already, and suspended
  end
  call('HSET', shadow, 'r', 'disconnected', 'n', node, 'a', last_active or now())
  local deadline = now() + grace
  if redis.call('PEXPIREAT', presence, digits(deadline), 'LT') == 0 then
    deadline = redis.call('PEXPIRETIME', presence)
  end
  deadlines[#deadlines + 1] = deadline
  deadlines[#deadlines + 1] = user
  return deadline
end

-- Stores deadlines of members of a room, with one command for all.
local function store_deadlines(room, deadlines)
  if #deadlines == 0 then return end
  local earliest = deadlines[1]
  for i = 1, #deadlines, 2 do
    earliest = math.min(earliest, deadlines[i])
    deadlines[i] = digits(deadlines[i])
  end
  call('ZADD', members_key(room), unpack(deadlines))
  lower_room_deadline(room, earliest)
end
