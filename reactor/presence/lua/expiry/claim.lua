-- Claims departures: removes each named member whose presence key is gone and whose row is still there. A second claim
-- finds nothing, and a member that joined anew is left alone. While expiry is suspended nothing is done; the
-- pacemaker and the sweep try again.
-- ARGV: keep (ms for which it is kept when users were last seen); then for each member: room, user; home (where the
--       departure is to be taken into the index of people: what the keys of the user's shard start with; else '')
-- Returns: {now, then for each departed: suffix, reason, stored deadline}
-- Publishes: a diff (left) for each room; a change of each person
demand_right_to_change()
local suspended_until, unmarked = expiry_suspended_until()
-- Nodes claim, and they mark each shard: where Redis may have evicted the mark, the next one suspends expiry.
if suspended_until or (unmarked and may_evict()) then return { now() } end

-- Removes what is left of a member whose row was lost, as with a damaged `members:ROOM`: nothing else would find it.
local function remove_orphan(room, user)
  if redis.call('EXISTS', shadow_key(room, user)) == 0 then return end
  local _, connections = read_shadow(room, user)
  for connection in pairs(connections) do remove_from_node(room, { user }, node_of(connection)) end
  redis.call('DEL', shadow_key(room, user))
end

local by_room, order, homes = {}, {}, {}
local found_keys, prefixes = {}, {} -- counted at once: usually none of the keys exists
for i = 2, #ARGV, 3 do
  local room, home = ARGV[i], ARGV[i + 2]
  found_keys[#found_keys + 1] = presence_key(room, ARGV[i + 1])
  if home ~= '' then
    found_keys[#found_keys + 1] = erased_key(home, ARGV[i + 1])
    prefixes[home] = true
  end
  if not by_room[room] then
    by_room[room] = {}
    order[#order + 1] = room
  end
  table.insert(by_room[room], ARGV[i + 1])
  homes[ARGV[i + 1]] = home ~= '' and home or nil
end
local any_found = count_existing(found_keys, prefixes) > 0
erasures.possible = any_found

-- Those of some users whose key is gone and whose row is still there, and the stored deadlines of these. What many of a
-- room need is read at once.
local function find_gone(room, users)
  local stored, found, deadlines = {}, {}, {}
  if #users > 1 then
    local due = call('ZRANGE', members_key(room), '-inf', '(' .. now(), 'BYSCORE', 'LIMIT', 0, 2 * #users, 'WITHSCORES')
    for i = 1, #due, 2 do stored[due[i]] = due[i + 1] end
  end
  for _, user in ipairs(users) do
    local deadline = stored[user] or call('ZSCORE', members_key(room), user)
    -- Before its stored deadline a key cannot have expired: it was deleted, or evicted.
    local early = deadline and tonumber(deadline) > now()
    local gone = not any_found or redis.call('EXISTS', presence_key(room, user)) == 0
    if gone and not deadline and not may_evict() then
      remove_orphan(room, user)
    elseif gone and deadline and not (early and may_evict()) then
      found[#found + 1] = user
      deadlines[user] = deadline
    end
  end
  return found, deadlines
end

local reply, exits = { now() }, {}
local function claim(room)
  local found, deadlines = find_gone(room, by_room[room])
  local departed = remove_members(room, found, nil, { deadlines = deadlines, exits = next(homes) and exits })
  for i = 1, #departed, 3 do
    reply[#reply + 1] = room .. ':user:' .. departed[i]
    reply[#reply + 1] = departed[i + 1]
    reply[#reply + 1] = departed[i + 2]
  end
end

-- The departures of the rooms before one that fails are taken in.
local failure
for _, room in ipairs(order) do
  local claimed, problem = pcall(claim, room)
  if not claimed then
    failure = problem
    break
  end
end
take_in_exits(exits, homes, tonumber(ARGV[1]))
if failure then error(failure) end
return reply
