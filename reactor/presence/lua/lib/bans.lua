-- Bans. A ban is a key with a TTL: of a user in one room, or of a user everywhere, with a copy in every shard, so that
-- each join finds it in its own shard. `bans` lists by the end of each the bans that were made here: those of the
-- shard's rooms, and under the fleet's prefix those everywhere.

local BANS = SHARD .. ':bans'

local function ban_key(id) return SHARD .. ':ban:' .. id end
local function room_ban_id(room, user) return 'room:' .. room .. ':user:' .. user end
local function user_ban_id(user) return 'user:' .. user end

-- Stores a new ban in place of an earlier one, and notifies all nodes of it; returns its record (JSON) and when it ends
-- (ms). `room_id`: nil for all.
local function set_ban(id, room_id, user_id, ttl, message, by)
  local ends_at = now() + ttl
  local ban = { userId = user_id, roomId = room_id, at = now(), ['until'] = ends_at }
  if message ~= '' then ban['message'] = message end
  if by ~= '' then ban['by'] = by end
  local record = cjson.encode(ban)
  redis.call('SET', ban_key(id), record, 'PXAT', ends_at)
  call('ZADD', BANS, ends_at, id)
  redis.call(PUBLISH, CHANNELS .. ':wake', BAN_MARK .. record)
  return record, ends_at
end

-- The record of a ban that has not ended, or nil. What another program stored in its place is no ban, and would have
-- no end: it is renamed aside.
local function read_ban(id)
  local record = call('GET', ban_key(id))
  if not record then return nil end
  local readable, ban = pcall(cjson.decode, record)
  local ends_at = readable and type(ban) == 'table' and tonumber(ban['until'])
  if ends_at and ends_at > now() then return record end
  pcall(call, 'HLEN', ban_key(id)) -- no hash, so that this renames it
  return nil
end

-- The record of the ban that refuses a user a room, or nil.
local function find_ban(room, user) return read_ban(user_ban_id(user)) or read_ban(room_ban_id(room, user)) end

local LATEST_END = 99999999999999 -- ms; more digits than that a number loses as text

-- At most `size` listed bans that end at `score` (ms) or later, after the one named `after` among those that end then.
-- Returns {id, end, ...}, flat. What another program added to the list is left out, and an end that it changed limited.
local function list_bans(score, after, size)
  local found, start = {}, call('ZCOUNT', BANS, '-inf', '(' .. score)
  while true do
    local page = call('ZRANGE', BANS, start, start + size - 1, 'WITHSCORES')
    for i = 1, #page, 2 do
      local id, ends_at = page[i], math.min(tonumber(page[i + 1]), LATEST_END)
      local is_ban = string.find(id, '^user:.') or string.find(id, '^room:.+:user:.')
      if is_ban and (ends_at ~= score or id > after) then
        found[#found + 1] = id
        found[#found + 1] = ends_at
      end
      if #found == 2 * size then return found end
    end
    if #page < 2 * size then return found end
    start = start + size
  end
end
