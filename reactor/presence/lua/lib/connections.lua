-- A member's connections are fields of its shadow; indexes by node name the rooms and members to detach when the node
-- is lost.

-- Adds a connection to the shadow, and with the same command other fields, given as name and value.
local function store_connection(room, user, connection, away, ...)
  call('HSET', shadow_key(room, user), connection, away, ...)
end

-- Adds members of a room to a node's indexes, given as a score, which is 0, and the user.
local function add_to_node(room, node, rows)
  if call('ZADD', node_room_key(node, room), unpack(rows)) > 0 and call('SADD', node_key(node), room) == 1 then
    call('SADD', NODES, node)
  end
end

-- Removes members of a room from a node's indexes.
local function remove_from_node(room, users, node)
  local by_room = node_room_key(node, room)
  if call('ZREM', by_room, unpack(users)) > 0 and redis.call('EXISTS', by_room) == 0 then
    call('SREM', node_key(node), room)
    if redis.call('EXISTS', node_key(node), lost_node_key(node)) == 0 then call('SREM', NODES, node) end
  end
end

-- Removes one connection from the shadow that `connections` was read from. by_node: nil, or where a member that has no
-- other connection to the node is noted, for the caller to remove it from the node's indexes.
local function remove_connection(room, user, connection, connections, by_node)
  if not connections[connection] then return end
  call('HDEL', shadow_key(room, user), connection)
  connections[connection] = nil
  local node = node_of(connection)
  for other in pairs(connections) do
    if node_of(other) == node then return end
  end
  if not by_node then return remove_from_node(room, { user }, node) end
  by_node[node] = by_node[node] or {}
  table.insert(by_node[node], user)
end

-- Derives the presence key's `away` and `connections` from the connections; true when that changed them. Both fields
-- are absent at their usual value, which saves 30 bytes a member.
local function update_visible_fields(room, user, connections)
  local count, away = 0, true
  for _, flag in pairs(connections) do
    count = count + 1
    if flag ~= '1' then away = false end
  end
  if count == 0 then return false end -- within its disconnect grace a member keeps the fields it had
  local presence = presence_key(room, user)
  local before = redis.call('HMGET', presence, 'away', 'connections', 'userId')
  if not before[3] then return false end -- suspended: writing here would create a key without an expiry
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
