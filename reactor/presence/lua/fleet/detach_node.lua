-- Detaches a lost node's connections from one room, with the same effect as if each had been lost by itself: a member
-- without another connection enters its grace.
-- ARGV: node; room; grace, away_grace (ms)
-- Returns: 1 when there is more to do in this room, else 0
-- Publishes: diffs (updated) for members that have other connections; a diff (left) where the grace is 0
demand_right_to_change()
local node, room, grace, away_grace = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local by_room = node_room_key(node, room)
local changed, deadlines = {}, {}
local function detach(user)
  call('ZREM', by_room, user)
  local last_active = read_last_active(room, user)
  if last_active or settle_member(room, user) ~= 'gone' then
    local _, connections = read_shadow(room, user)
    local all_away = true
    for connection, flag in pairs(connections) do
      if node_of(connection) == node then
        call('HDEL', shadow_key(room, user), connection)
        connections[connection] = nil
        if flag ~= '1' then all_away = false end
      end
    end
    if next(connections) then
      if update_visible_fields(room, user, connections) then changed[#changed + 1] = read_member(room, user) end
    else
      start_grace(room, user, node, all_away and away_grace or grace, last_active, deadlines)
    end
  end
end

-- The deadlines of the members before one that fails are stored.
local failure
for _, user in ipairs(call('ZRANGE', by_room, 0, MAX_ROWS - 1)) do
  local detached, problem = pcall(detach, user)
  if not detached then
    failure = problem
    break
  end
end
store_deadlines(room, deadlines)
if failure then error(failure) end
if #changed > 0 then publish_diff(room, #changed, {}, changed, {}) end
if redis.call('EXISTS', by_room) == 1 then return 1 end
call('SREM', lost_node_key(node), room)
return 0
