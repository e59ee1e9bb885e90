-- Stands before every script. All keys of a shard start with its prefix, which is the one declared key: on a
-- cluster it holds the slot, and with it everything below. PUBLISH and KEPT are set by the loader.
--
-- A member's row in `members:ROOM` is what a departure takes away: whoever removes the row tells the others,
-- so that it is told once. Its score is a lower bound of the presence key's deadline; `rooms` holds a lower
-- bound of each room's earliest score. Only a look moves a bound forward; whatever shortens a life lowers it.
--
-- Alive means that the presence key exists. Key expiry stands still while a script runs, TIME on Redis 7.0 does
-- not: it is read once, here, and decides only which rows are worth a look.

local SHARD = KEYS[1]
local CLOCK = redis.call('TIME')
local NOW = CLOCK[1] * 1000 + math.floor(CLOCK[2] / 1000)
local ROOMS = SHARD .. ':rooms'
local NODES = SHARD .. ':nodes'
local CHANGES = SHARD .. ':changes'
local BATCH = 1000 -- most rows that one call works through, so that nobody waits for more than some milliseconds
local LINGER = 60000 -- an emptied room's position outlives it so long, so that its last diff can still be placed

local function presence_key(room, user) return SHARD .. ':room:' .. room .. ':user:' .. user end
local function shadow_key(room, user) return SHARD .. ':shadow:room:' .. room .. ':user:' .. user end
local function members_key(room) return SHARD .. ':members:' .. room end
local function state_key(room) return SHARD .. ':state:' .. room end
local function node_key(node) return SHARD .. ':node:' .. node end
local function lost_key(node) return SHARD .. ':lost:' .. node end
local function node_room_key(node, room) return SHARD .. ':node:' .. node .. ':' .. room end

local function unescape(text)
  return (string.gsub(text, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

local function node_of(connection) return string.match(connection, '^[^.]+') end

-- A member as diffs and lists carry it, or nil when its presence key is gone. A hand may have changed the key: what is
-- asked for many at once goes by `pcall`, so that one that is no hash any more harms no other.
local MEMBER_FIELDS = { 'userId', 'username', 'data', 'joinedAt', 'lastActiveAt', 'away', 'connections' }
local function read_member(room, user)
  local row = redis.pcall('HMGET', presence_key(room, user), unpack(MEMBER_FIELDS))
  if not row[1] then return nil end
  local joined_at, last_active = tonumber(row[4]) or 0, tonumber(row[5]) or 0
  return { row[1], row[2] or row[1], row[3] or '', joined_at, last_active, row[6] and 1 or 0, tonumber(row[7]) or 1 }
end

local function read_last_active(room, user)
  local found = redis.pcall('HGET', presence_key(room, user), 'lastActiveAt')
  return type(found) == 'string' and found or nil
end

-- Moves the room's position by `steps` and tells its nodes; returns epoch, version, count and what was published.
local function tell(room, steps, joined, updated, left)
  local state = state_key(room)
  local version = redis.call('HINCRBY', state, 'version', steps)
  local epoch, count = redis.call('HGET', state, 'epoch'), redis.call('ZCARD', members_key(room))
  if not epoch then
    epoch = CLOCK[1] .. string.format('%06d', CLOCK[2])
    redis.call('HSET', state, 'epoch', epoch)
    -- From version 0 on means that the room was empty. Where it was not, since a hand took its position away, the
    -- diff joins on to nothing, so that everyone lists the room anew.
    if count > #joined then version = redis.call('HINCRBY', state, 'version', 1) end
  end
  local diff = cmsgpack.pack({ epoch, version - steps, version, count, joined, updated, left })
  redis.call(PUBLISH, SHARD .. ':diff:' .. room, diff)
  if #joined + #left > 0 then -- where webhooks are in use; else there is no log, and none is made
    redis.call('XADD', CHANGES, 'NOMKSTREAM', 'MAXLEN', '~', KEPT, '*', 'room', room, 'diff', diff)
  end
  return epoch, version, count, diff
end

-- Notes that a deadline of the room may be nearer than known, and wakes the pacemaker when it is the nearest.
local function lower(room, deadline)
  if redis.call('ZADD', ROOMS, 'LT', 'CH', deadline, room) == 1 then
    if redis.call('ZRANGE', ROOMS, 0, 0)[1] == room then redis.call(PUBLISH, SHARD .. ':wake', deadline) end
  end
end

-- The shadow, split into its fields and its connections ({connection: '1' when away}).
local function read_shadow(room, user)
  local flat = redis.call('HGETALL', shadow_key(room, user))
  local fields, connections, count = {}, {}, 0
  for i = 1, #flat, 2 do
    if string.find(flat[i], '.', 1, true) then
      connections[flat[i]] = flat[i + 1]
      count = count + 1
    else
      fields[flat[i]] = flat[i + 1]
    end
  end
  return fields, connections, count
end

local function remember_connection(room, user, connection, away)
  local node = node_of(connection)
  redis.call('HSET', shadow_key(room, user), connection, away)
  if redis.call('ZADD', node_room_key(node, room), 0, user) == 1 then
    redis.call('SADD', node_key(node), room)
    redis.call('SADD', NODES, node)
  end
end

local function forget_node(room, user, node)
  local by_room = node_room_key(node, room)
  if redis.call('ZREM', by_room, user) == 1 and redis.call('EXISTS', by_room) == 0 then
    redis.call('SREM', node_key(node), room)
    if redis.call('EXISTS', node_key(node), lost_key(node)) == 0 then redis.call('SREM', NODES, node) end
  end
end

-- Takes one connection out of a shadow that `connections` was read from.
local function forget_connection(room, user, connection, connections)
  if not connections[connection] then return false end
  redis.call('HDEL', shadow_key(room, user), connection)
  connections[connection] = nil
  local node = node_of(connection)
  for other in pairs(connections) do
    if node_of(other) == node then return true end
  end
  forget_node(room, user, node)
  return true
end

-- Brings `away` and `connections` of the presence key into line with the connections; true when that changed it.
-- Both fields are left out at their usual value, which saves 30 bytes a member.
local function reflect(room, user, connections)
  local count, away = 0, true
  for _, flag in pairs(connections) do
    count = count + 1
    if flag ~= '1' then away = false end
  end
  if count == 0 then return false end -- in its grace a member keeps the face it had
  local presence = presence_key(room, user)
  local before = redis.call('HMGET', presence, 'away', 'connections', 'userId')
  if not before[3] then return false end -- it lapsed and is held: no key is made here, which would have no end
  local changed = false
  if (before[1] and true or false) ~= away then
    if away then redis.call('HSET', presence, 'away', 1) else redis.call('HDEL', presence, 'away') end
    changed = true
  end
  if tonumber(before[2] or 1) ~= count then
    if count == 1 then
      redis.call('HDEL', presence, 'connections')
    else
      redis.call('HSET', presence, 'connections', count)
    end
    changed = true
  end
  return changed
end

-- Puts a departure on record.
local function record(room_id, user_id, username, reason, joined_at, last_active, node)
  redis.call('XADD', SHARD .. ':departures', 'MAXLEN', '~', KEPT, '*', 'room', room_id, 'user', user_id,
    'username', username, 'reason', reason, 'joinedAt', joined_at, 'lastActiveAt', last_active,
    'leftAt', NOW, 'node', node)
  redis.call('HINCRBY', SHARD .. ':totals', reason, 1)
end

-- The reason that is on record for the end of this very joining, among the newest; or nil.
local function on_record(room_id, user_id, joined_at)
  for _, entry in ipairs(redis.call('XREVRANGE', SHARD .. ':departures', '+', '-', 'COUNT', 200)) do
    local fields = {}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    if fields.room == room_id and fields.user == user_id and fields.joinedAt == joined_at then return fields.reason end
  end
  return nil
end

-- Ends members of one room: both keys, every index, the stream, the totals, one diff for all of them.
-- Returns the departed as {user, reason, deadline noted, ...}, flat, in threes. A user without a row is passed over.
local function depart(room, users, reason, message)
  local departed, left = {}, {}
  local members, room_id = members_key(room), unescape(room)
  for _, user in ipairs(users) do
    local deadline = redis.call('ZSCORE', members, user)
    if deadline then
      local presence = presence_key(room, user)
      local fields, connections = read_shadow(room, user)
      local last_active = read_last_active(room, user) or fields.a or fields.j or NOW
      local why = reason or fields.r or 'inactivity_timeout'
      local node = fields.n or ''
      for connection in pairs(connections) do
        node = node_of(connection)
        forget_node(room, user, node)
      end
      redis.call('ZREM', members, user)
      redis.call('DEL', presence, shadow_key(room, user))
      local user_id = unescape(user)
      record(room_id, user_id, fields.u or user_id, why, fields.j or NOW, last_active, node)
      left[#left + 1] = { user_id, why, NOW, message or '' }
      departed[#departed + 1] = user
      departed[#departed + 1] = why
      departed[#departed + 1] = deadline
    end
  end
  if #left > 0 then
    tell(room, #left, {}, {}, left)
    if redis.call('EXISTS', members) == 0 then
      redis.call('ZREM', ROOMS, room)
      redis.call('PEXPIRE', state_key(room), LINGER)
    end
  end
  return departed
end

-- Looks at the members whose noted deadline has passed: the living get their true deadline, and what they last
-- did is noted, for it goes with the presence key. The look itself makes Redis expire a lapsed key and say so.
-- Returns the users found gone, and how many rows were looked at.
local function look(room, limit, offset)
  local members, gone = members_key(room), {}
  local due = redis.call('ZRANGE', members, '-inf', '(' .. NOW, 'BYSCORE', 'LIMIT', offset or 0, limit)
  for _, user in ipairs(due) do
    local presence = presence_key(room, user)
    local deadline = redis.call('PEXPIRETIME', presence)
    if deadline == -2 then
      gone[#gone + 1] = user
    else
      if deadline == -1 then deadline = NOW + LINGER end -- a hand made it permanent: look again later, never spin
      -- Redis 7.0 reads TIME a moment after the one by which it judges keys: look again in the next millisecond.
      if deadline < NOW then deadline = NOW end
      redis.call('ZADD', members, deadline, user)
      redis.call('HSET', shadow_key(room, user), 'a', read_last_active(room, user) or NOW)
    end
  end
  return gone, #due
end

local run_id_known
local function run_id()
  run_id_known = run_id_known or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  return run_id_known
end

-- Whether this server is one of those: run ids of primaries. A slot may move between them; one that took over, or came
-- back from a file, is another, and may know less than the last.
local function is_known(servers) return servers and string.find(servers, run_id(), 1, true) ~= nil end

-- Nodes pulse each shard while they live and Redis takes their writes. After a time without a pulse everybody looks
-- gone who only could not say so, and a server that the pulses do not know may have lost who came back: then nobody's
-- end by time counts until all have entered again, or could within one lease. Returns the time until which that holds,
-- or nil. A shard that nobody ever pulsed has no nodes to wait for.
local function held_until()
  local pulse = redis.call('HMGET', SHARD .. ':pulse', 'at', 'lease', 'hold', 'servers')
  if not pulse[1] then return nil end
  local lease = tonumber(pulse[2])
  if NOW - pulse[1] > lease or not is_known(pulse[4]) then return NOW + lease end
  local hold = tonumber(pulse[3] or 0)
  return NOW < hold and hold or nil
end

-- Whether the user of Redis who runs this may only read: then nothing is settled, and the answers are the same.
local reads_only_known
local function reads_only()
  if reads_only_known == nil then reads_only_known = not redis.acl_check_cmd('ZREM', ROOMS, '') end
  return reads_only_known
end

-- Makes the room exact before it answers. True when there was more than one call may do: call again.
local function settle(room)
  if reads_only() then return false end
  local gone, looked = look(room, BATCH)
  if #gone == 0 then return looked == BATCH end
  if held_until() then
    while looked == BATCH do
      local more
      more, looked = look(room, BATCH, #gone)
      for _, user in ipairs(more) do gone[#gone + 1] = user end
    end
    return false
  end
  depart(room, gone)
  return looked == BATCH
end

-- 'alive', 'gone', or 'held': its time is up, but does not count now. Ends a member whose key is gone and row is not.
local function settle_member(room, user)
  if redis.call('EXISTS', presence_key(room, user)) == 1 then return 'alive' end
  if not redis.call('ZSCORE', members_key(room), user) then return 'gone' end
  if reads_only() or held_until() then return 'held' end
  depart(room, { user })
  return 'gone'
end

-- The room's position: epoch ('' for a room nobody was in), version, count. Of a settled room only held ones are due.
local function position(room)
  local state, members = redis.call('HMGET', state_key(room), 'epoch', 'version'), members_key(room)
  local gone = redis.call('ZCOUNT', members, '-inf', '(' .. NOW)
  if gone > 0 and reads_only() then
    for _, user in ipairs(redis.call('ZRANGE', members, '-inf', '(' .. NOW, 'BYSCORE')) do
      gone = gone - redis.call('EXISTS', presence_key(room, user))
    end
  end
  return state[1] or '', tonumber(state[2] or 0), redis.call('ZCARD', members) - gone
end

-- The member's last connection is gone: cuts its life to the grace. Returns the deadline, or nil when it ended it.
local function start_grace(room, user, node, grace)
  if grace <= 0 then
    depart(room, { user }, 'disconnected')
    return nil
  end
  local presence, shadow = presence_key(room, user), shadow_key(room, user)
  redis.call('HSET', shadow, 'r', 'disconnected', 'n', node)
  if redis.call('EXISTS', presence) == 0 then return NOW end -- its time is up already, and held
  redis.call('HSET', shadow, 'a', read_last_active(room, user) or NOW)
  redis.call('PEXPIREAT', presence, NOW + grace, 'LT')
  local deadline = redis.call('PEXPIRETIME', presence)
  redis.call('ZADD', members_key(room), deadline, user)
  lower(room, deadline)
  return deadline
end

-- Adds to `gone` the suffix of each member whose presence key is gone. Names are every `stride`th of `users`.
-- One EXISTS asks for all of them; single ones are asked for only when it does not count them all.
local function audit(room, users, stride, gone)
  local keys = {}
  for i = 1, #users, stride do keys[#keys + 1] = presence_key(room, users[i]) end
  if #keys == 0 or redis.call('EXISTS', unpack(keys)) == #keys then return end
  for i = 1, #users, stride do
    if redis.call('EXISTS', presence_key(room, users[i])) == 0 then gone[#gone + 1] = room .. ':user:' .. users[i] end
  end
end

-- A node that was judged lost may wake up and go on as if nothing had been. Until it takes a new name it is refused;
-- as is a connection that is gone, and of which a join may come late.
local FENCED_FOR = 3600000
local function fenced_key(name) return SHARD .. ':fenced:' .. name end
local function fence(name) redis.call('SET', fenced_key(name), 1, 'PX', FENCED_FOR) end
