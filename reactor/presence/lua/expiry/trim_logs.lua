-- Removes from the shard's logs what is too old, and what exceeds the bytes that each may take, about: its size is
-- estimated by its newest and its oldest entries.
-- ARGV: max_bytes (of each log); max_age (ms, of departures; 0 for any); max_change_age (ms, of changes)
-- Returns: {removed departures, removed changes}; {-1, -1} where the user may not trim
-- Publishes: nothing
local max_bytes, max_age = tonumber(ARGV[1]), tonumber(ARGV[2])
local departures = SHARD .. ':departures'

-- Asked for, and not tried: a refusal of every round would be counted and logged as one of Redis.
local function may(command, ...) return not redis.acl_check_cmd or redis.acl_check_cmd(command, CHANGES, ...) end

if not may('XTRIM', 'MAXLEN', 1) then return { -1, -1 } end

-- Of a log that was read before, so that one of a wrong type has been renamed aside.
local function length_of(key)
  local info = redis.call('EXISTS', key) == 1 and redis.call('XINFO', 'STREAM', key) or {}
  for i = 1, #info, 2 do
    if info[i] == 'length' then return info[i + 1] end
  end
  return 0
end

local function bytes_of(entry)
  local bytes = 150 -- what a stream takes for an entry beside its values, about
  for i = 2, #entry[2], 2 do bytes = bytes + #entry[2][i] end
  return bytes
end

-- How many entries of a log fit into `max_bytes`; and, as most bytes of the newest entries are of one room, that room.
local function capacity_of(key)
  local largest, of_room, of_all = 1, {}, 0
  local newest = call('XREVRANGE', key, '+', '-', 'COUNT', 100)
  for _, entries in ipairs({ newest, call('XRANGE', key, '-', '+', 'COUNT', 100) }) do
    local bytes = 0
    for _, entry in ipairs(entries) do bytes = bytes + bytes_of(entry) end
    largest = math.max(largest, bytes / math.max(1, #entries))
  end
  for _, entry in ipairs(newest) do
    of_room[entry[2][2]] = (of_room[entry[2][2]] or 0) + bytes_of(entry)
    of_all = of_all + bytes_of(entry)
  end
  for room, bytes in pairs(of_room) do
    if 2 * bytes > of_all then return math.floor(max_bytes / largest), room end
  end
  return math.floor(max_bytes / largest), nil
end

-- Removes the newest changes of a room that fills the log, so that it does not push out those of others.
local function remove_of_room(room, count)
  local removed = 0
  for _, entry in ipairs(call('XREVRANGE', CHANGES, '+', '-', 'COUNT', 4 * count)) do
    if removed < count and entry[2][2] == room then removed = removed + call('XDEL', CHANGES, entry[1]) end
  end
  if removed > 0 then call('HINCRBY', SHARD .. ':places', ' dropped', removed) end -- no endpoint's name has a space
  return removed
end

local removed_departures, removed_changes = 0, 0
if max_age > 0 then removed_departures = call('XTRIM', departures, 'MINID', now() - max_age) end
local capacity, storming = capacity_of(departures)
local length = length_of(departures)
if length > capacity then removed_departures = removed_departures + call('XTRIM', departures, 'MAXLEN', capacity) end

capacity, storming = capacity_of(CHANGES)
if length_of(CHANGES) > 0 then removed_changes = call('XTRIM', CHANGES, 'MINID', now() - ARGV[3]) end
length = length_of(CHANGES)
if not may('XDEL', '0-1') then storming = nil end
if length > capacity and storming then
  local of_room = remove_of_room(storming, math.min(1000, length - capacity))
  removed_changes, length = removed_changes + of_room, length - of_room
end
-- Twice as many stay where a room's changes are not removed fast enough.
local most = storming and 2 * capacity or capacity
if length > most then removed_changes = removed_changes + call('XTRIM', CHANGES, 'MAXLEN', most) end
return { removed_departures, removed_changes }
