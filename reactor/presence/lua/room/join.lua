-- Joins users to rooms of one shard, each over one connection: as a new member, by a further connection, or back within
-- the grace. The room is settled first, so that the departure of an earlier membership that expired unnoticed is
-- published. Joins that come at the same time share a call; each is answered by itself.
-- ARGV: for each member: room, user (escaped); room_id, user_id (as they are); username, data ('' keeps the stored
--       one); connection (NODE.SEQUENCE); ttl (ms); max_members (0 for no limit); epoch ('' for a client that joins;
--       else the connection registers again: in that epoch, so a member that departed since stays departed, or in any
--       epoch for '*'. Then username and data are used only if Redis lost them); replaces ('' or the connection's
--       former name); away ('1' or '0'); joined_at ('' or ms: when the member had joined, where Redis lost it);
--       resume ('' or, of a client that returns, 'KEEP VERSION JOINED_AT EPOCH': its joining before, and by KEEP
--       which values are used only if Redis lost them, u for the username and d for the data); max_connections (of
--       the user in the room; 0 for no limit); person ('' or the token of this join in the index of people); home
--       (where the room is to be added to the user's record: what the keys of the user's shard start with; else '')
-- Returns: {for each member: {'again'} | {'fenced'} (the node was judged lost) | {'full', count} (members) |
--          {'crowded', count} (connections of the user) | {'departed'} (or it was detached) |
--          {'removed', reason, message, at} (the joining before was ended while the client was offline) |
--          {'banned', now, record (JSON)} |
--          {'joined' or 'resumed', now, epoch, version, count, joinedAt, diff or ''} | an error}. Of new members of
--          one room the first has the diff.
-- Publishes: a diff (joined) of a room's new members; a diff (updated) where a member's visible fields changed; a
--            change of the person
-- The keys that may refuse one of the joins, or make it another than the first of a new member, are counted at once:
-- usually there is none.
local function refusing_keys(room, user, connection)
  return fence_key(node_of(connection)), fence_key(join_fence(connection, room, user)), ban_key(user_ban_id(user)),
    ban_key(room_ban_id(room, user))
end

local found_keys, homes = {}, {}
for i = 1, #ARGV, 17 do
  local n = #found_keys
  found_keys[n + 1], found_keys[n + 2], found_keys[n + 3], found_keys[n + 4] =
    refusing_keys(ARGV[i], ARGV[i + 1], ARGV[i + 6])
  found_keys[n + 5] = presence_key(ARGV[i], ARGV[i + 1])
  if ARGV[i + 16] ~= '' then homes[ARGV[i + 16]] = true end
end
local adds_rooms = next(homes) ~= nil
local any_found = count_existing(found_keys, homes) > 0
if any_found or has_log(SHARD) then demand_right_to_change() else demand_right_to_add(adds_rooms) end
local written = {} -- presence keys, by this call
local new_members = {} -- new_members: by room those whose join is yet to be published
local MAX_DIFF_DATA = 16384 -- bytes of members' data in a diff, about: no publication becomes large by a storm of joins
local rows_left = MAX_ROWS -- that may be examined in this call, to settle rooms

-- Publishes the joins of a room's new members as one diff, which the first of them gets with its reply.
local function publish_joins(room)
  local new = new_members[room]
  new_members[room] = nil
  local failed = attempt(function()
    for node, rows in pairs(new.by_node) do add_to_node(room, node, rows) end
    lower_room_deadline(room, new.deadline)
    local epoch, version, total, diff = publish_diff(room, #new.members, new.members, {}, {}, new.count)
    for _, reply in ipairs(new.replies) do
      reply[3], reply[4], reply[5], reply[7] = epoch, version, total, diff
      diff = ''
    end
  end)
  if failed then
    for _, reply in ipairs(new.replies) do reply.err = failed.err end
  end
end

-- Notes a new member whose join is yet to be published, and returns the reply, which is complete then. count: of the
-- members with this one.
local function note_new(reply, room, user, node, member, count, deadline)
  local new = new_members[room]
  if new then
    local rows = new.by_node[node] or {}
    new.by_node[node] = rows
    rows[#rows + 1], rows[#rows + 2] = '0', user
    table.insert(new.members, member)
    table.insert(new.replies, reply)
    new.count, new.deadline, new.bytes = count, math.min(new.deadline, deadline), new.bytes + #member[3]
  else
    new = { by_node = { [node] = { '0', user } }, members = { member }, replies = { reply }, count = count,
      deadline = deadline, bytes = #member[3] }
    new_members[room] = new
  end
  if new.bytes > MAX_DIFF_DATA then publish_joins(room) end
  return reply
end

-- Adds the room to the user's record, or notes there the token of this join.
local function add_room(home, user, room, token, away)
  if home == '' then return end
  count_room(home, user, room, call('HMGET', person_key(home, user), room, ':s'), token, away)
end

local function join(room, user, room_id, user_id, username, data, connection, ttl, max_members, known_epoch, replaces,
    away, known_joined_at, resume, max_connections, person, home)
  local presence, shadow, members = presence_key(room, user), shadow_key(room, user), members_key(room)
  ttl, max_members, max_connections = tonumber(ttl), tonumber(max_members), tonumber(max_connections) or 0
  if any_found and redis.call('EXISTS', refusing_keys(room, user, connection)) > 0 then
    if redis.call('EXISTS', fence_key(join_fence(connection, room, user))) == 1 then return { 'departed' } end
    if redis.call('EXISTS', fence_key(node_of(connection))) == 1 then return { 'fenced' } end
    local ban = find_ban(room, user)
    if ban then return { 'banned', now(), ban } end
  end
  local unsettled, examined = settle_room(room, rows_left)
  rows_left = rows_left - examined
  if unsettled then return { 'again' } end
  local time = now()
  local since = tonumber(known_joined_at) or time
  local time_digits, deadline = digits(time), digits(time + ttl)
  local since_digits = since == time and time_digits or digits(since)

  local status, members_before
  local new = new_members[room]
  if not any_found and not written[presence] and known_epoch == '' and resume == '' then
    -- Its presence key does not exist. Where it has no row either, it is a new member: one command finds that out, and
    -- writes the row.
    local count = new and new.count or call('ZCARD', members)
    if max_members == 0 or count < max_members then
      if count == 0 then redis.call('PERSIST', state_key(room)) end
      if call('ZADD', members, 'NX', deadline, user) == 1 then status, members_before = 'new', count end
    end
  end
  if not status then
    -- What is published of a member who has a row, or a presence key, follows the joins before it.
    if new and call('ZSCORE', members, user) then publish_joins(room) end
    status = settle_member(room, user)
    if status ~= 'gone' and new_members[room] then publish_joins(room) end
  end
  if status == 'alive' and redis.pcall('HEXISTS', presence, 'userId') ~= 1 then
    -- No list shows a member without it. A key of a wrong type is renamed aside, to keep its user out no longer.
    call('HEXISTS', presence, 'userId')
    status = 'suspended'
  end
  local keep, seen_version, former_joined_at, seen_epoch = string.match(resume, '^(%a*) (%d+) (%d+) (.*)$')
  if keep then
    local removal = find_removal(room, user, tonumber(former_joined_at), seen_epoch, tonumber(seen_version))
    if removal then return { 'removed', removal.reason, removal.message, removal.at } end
  end
  if status == 'gone' then
    if known_epoch ~= '' and call('HGET', state_key(room), 'epoch') == known_epoch then return { 'departed' } end
    -- In another epoch Redis lost the member, or it has departed since: a recorded departure is not undone.
    if known_epoch ~= '' and known_epoch ~= '*' and known_joined_at ~= ''
      and recorded_reason(room_id, user_id, known_joined_at) then
      return { 'departed' }
    end
    members_before = call('ZCARD', members)
    if max_members > 0 and members_before >= max_members then return { 'full', members_before } end
    if members_before == 0 then redis.call('PERSIST', state_key(room)) end
    call('ZADD', members, time + ttl, user)
    status = 'new'
  end
  if status == 'new' then
    if username == '' then username = user_id end
    add_room(home, user, room, person, away == '1')
    written[presence] = true
    local fields = { 'socketId', connection, 'userId', user_id, 'roomId', room_id, 'username', username,
      'lastActiveAt', time_digits, 'joinedAt', since_digits }
    for name, value in pairs({ data = data ~= '' and data or nil, away = away == '1' and 1 or nil }) do
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
    redis.call('HSET', presence, unpack(fields))
    redis.call('PEXPIREAT', presence, deadline)
    if person == '' then
      store_connection(room, user, connection, away, 'u', username, 'j', since_digits)
    else
      store_connection(room, user, connection, away, 'u', username, 'j', since_digits, 'p', person)
    end
    if since ~= time then note_activity(room, user, time_digits) end
    local member = { user_id, username, data, since, time, tonumber(away) or 0, 1 }
    return note_new({ 'joined', time, '', 0, 0, since, '' }, room, user, node_of(connection), member,
      members_before + 1, time + ttl)
  end

  demand_right_to_change()
  local fields, connections, count = read_shadow(room, user)
  if max_connections > 0 and count >= max_connections and not connections[connection] then
    return { 'crowded', count }
  end

  if status == 'suspended' then -- restored as if it had never expired; only its data is lost with the key
    if username == '' then username = fields.u or user_id end
    redis.call('HSET', presence, 'userId', user_id, 'roomId', room_id, 'username', fields.u or username,
      'joinedAt', fields.j or since)
    if data ~= '' then redis.call('HSET', presence, 'data', data) end
    call('ZADD', members, time + ttl, user)
    note_activity(room, user, time_digits)
  end
  if not fields.j then -- lost with the shadow
    local seen = redis.call('HMGET', presence, 'username', 'joinedAt')
    call('HSET', shadow, 'u', seen[1] or user_id, 'j', seen[2] or since)
  end
  -- The membership that is registered again may be another than Redis holds: Redis went back to before its end, or lost
  -- it, and the user joined over another connection before this one could register.
  local other = false
  if known_epoch ~= '' and known_joined_at ~= '' then
    local known = tonumber(call('HGET', shadow, 'j')) or since
    other = since > known or (since < known and not recorded_reason(room_id, user_id, known_joined_at))
  end
  if other then
    redis.call('HSET', presence, 'joinedAt', since)
    call('HSET', shadow, 'j', since)
  end
  redis.call('HSET', presence, 'socketId', connection, 'lastActiveAt', time_digits)
  redis.call('PEXPIREAT', presence, deadline)
  -- Where the TTL was shortened since, the deadline is earlier than the stored one. The row itself may have been lost.
  local stored = tonumber(call('ZSCORE', members, user) or nil)
  if not stored or stored > time + ttl then
    call('ZADD', members, time + ttl, user)
    lower_room_deadline(room, time + ttl)
    note_activity(room, user, time_digits)
  end
  if fields.r or fields.n then call('HDEL', shadow, 'r', 'n') end
  -- A member that comes back within the grace stays away until it says that it is back.
  if count == 0 and known_epoch == '' and redis.call('HEXISTS', presence, 'away') == 1 then away = '1' end
  if person == '' then
    store_connection(room, user, connection, away)
  else
    store_connection(room, user, connection, away, 'p', add_token(fields.p, person))
  end
  add_to_node(room, node_of(connection), { '0', user })
  connections[connection] = away
  if replaces ~= '' then remove_connection(room, user, replaces, connections) end
  -- A list made while the member was suspended, or had no row, lacks it, so its return is published.
  local changed = update_visible_fields(room, user, connections) or status == 'suspended' or not stored or other
  local visible = redis.call('HMGET', presence, 'username', 'data', 'away', 'joinedAt')
  add_room(home, user, room, person, visible[3] and true or false)
  if known_epoch ~= '' or string.find(keep or '', 'u') then username = '' end
  if known_epoch ~= '' or string.find(keep or '', 'd') then data = '' end
  if username ~= '' and username ~= visible[1] then
    redis.call('HSET', presence, 'username', username)
    call('HSET', shadow, 'u', username)
    changed = true
  end
  if data ~= '' and data ~= visible[2] then
    redis.call('HSET', presence, 'data', data)
    changed = true
  end
  local joined_at = tonumber(visible[4] or nil) or time
  if changed then
    local epoch, version, total, diff = publish_diff(room, 1, {}, { read_member(room, user) }, {})
    return { 'resumed', time, epoch, version, total, joined_at, diff }
  end
  local epoch, version, total = read_position(room)
  return { 'resumed', time, epoch, version, total, joined_at, '' }
end

local replies = {}
for i = 1, #ARGV, 17 do replies[#replies + 1] = attempt(join, unpack(ARGV, i, i + 16)) end
while next(new_members) do publish_joins(next(new_members)) end
return replies
