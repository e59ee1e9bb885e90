-- Connections of one shard were lost. With a member's last connection its life is shortened to the grace, and the
-- shadow notes the reason of the departure to come; nothing is published yet. The stored deadline is lowered at once. A
-- member whose keys were damaged externally fails by itself.
-- ARGV: for each member: room, user; connection; grace, away_grace (ms; 0 removes the member at once); join_unanswered
--       ('1' where a join of it got no reply: a stalled network may deliver that join later, for a connection that is
--       gone)
-- Returns: {for each member: {'absent'} | {'kept', now} | {'grace', now, deadline} | {'departed', now} | an error}
-- Publishes: a diff (updated) while other connections remain; a diff (left) where the grace is 0
demand_right_to_change()
local replies, by_room = {}, {} -- by_room: what is written at once for all members of a room

local function write_indexes(room, changes)
  for node, users in pairs(changes.by_node) do remove_from_node(room, users, node) end
  store_deadlines(room, changes.deadlines)
end

local function finish_room(room)
  local changes = by_room[room]
  by_room[room] = nil
  local failed = attempt(write_indexes, room, changes)
  if failed then
    for _, place in ipairs(changes.places) do replies[place] = failed end
  end
end

-- What the call has yet to write of a room. Of a user who is named again, it is written first.
local function changes_of(room, user)
  if by_room[room] and by_room[room].users[user] then finish_room(room) end
  by_room[room] = by_room[room] or { by_node = {}, deadlines = {}, places = {}, users = {} }
  local changes = by_room[room]
  table.insert(changes.places, #replies + 1)
  changes.users[user] = true
  return changes
end

local function detach(room, user, connection, grace, away_grace, join_unanswered)
  if join_unanswered == '1' then fence(join_fence(connection, room, user)) end
  local changes = changes_of(room, user)
  local last_active = read_last_active(room, user)
  if not last_active and settle_member(room, user) == 'gone' then return { 'absent' } end
  local _, connections, count = read_shadow(room, user)
  local flag = connections[connection]
  if not flag and count > 0 then return { 'kept', now() } end
  remove_connection(room, user, connection, connections, changes.by_node)
  if next(connections) then
    if update_visible_fields(room, user, connections) then
      publish_diff(room, 1, {}, { read_member(room, user) }, {})
    end
    return { 'kept', now() }
  end
  local deadline = start_grace(room, user, node_of(connection), tonumber(flag == '1' and away_grace or grace),
    last_active, changes.deadlines)
  if not deadline then return { 'departed', now() } end
  return { 'grace', now(), deadline }
end

for i = 1, #ARGV, 6 do
  replies[#replies + 1] = attempt(detach, unpack(ARGV, i, i + 5))
end
while next(by_room) do finish_room(next(by_room)) end
return replies
