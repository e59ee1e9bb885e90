-- Bans. A ban is a key with a TTL: of a user in one room, or of a user everywhere, with a copy in every shard, so that
-- each join finds it in its own shard. `bans` lists by the end of each the bans that were made here: those of the
-- shard's rooms, and under the fleet's prefix those everywhere.

local BANS = SHARD .. ':bans'

local LIFTED_TTL = 600000 -- ms; nodes repeat no change that is older (presence/known_bans.py)

local function lifted_key(id) return SHARD .. ':lifted:' .. id end
local function ban_key(id) return SHARD .. ':ban:' .. id end
local function room_ban_id(room, user) return 'room:' .. room .. ':user:' .. user end
local function user_ban_id(user) return 'user:' .. user end

-- Whether a change that is stored, of `at` (ms), is later than one of `made` (ms), of which the node that repeats it
-- heard `age` ms ago. server: run id of the one that made the stored change. After a failover the clock may be behind:
-- what this server itself has made since the node heard of the other change is later, whatever the times are.
local function is_later(at, server, made, age)
  return at >= made or server == SERVER and #SERVER == 40 and at > now() - age
end

-- Notes that a ban was lifted.
local function note_lifted(id, at, server)
  redis.call('SET', lifted_key(id), string.format('%.0f %s', at, server), 'PX', LIFTED_TTL)
end

-- Whether the copy of this very ban everywhere was lifted here: who read the ban before that may apply it later.
local function was_lifted(user, record)
  local made = string.match(call('GET', lifted_key(user_ban_id(user))) or '', '^(%d+)')
  return made and tonumber(made) == cjson.decode(record).at
end

-- Stores a ban in place of an earlier one, and notifies all nodes of it; returns its record (JSON) and when it ends
-- (ms). `room_id`: nil for all. `made`: when it was made (ms), if it is not now.
local function set_ban(id, room_id, user_id, ttl, message, by, made)
  local at = made or now()
  local ends_at = at + ttl
  local ban = { userId = user_id, roomId = room_id, at = at, ['until'] = ends_at, server = not made and SERVER or nil }
  if message ~= '' then ban['message'] = message end
  if by ~= '' then ban['by'] = by end
  local record = cjson.encode(ban)
  redis.call('SET', ban_key(id), record, 'PXAT', ends_at)
  call('ZADD', BANS, ends_at, id)
  redis.call('DEL', lifted_key(id))
  redis.call(PUBLISH, CHANNELS .. ':wake', BAN_MARK .. record)
  return record, ends_at
end

-- When the stored ban was made (ms), or nil where there is none; 0 where its record was evicted, or overwritten. And by
-- which server.
local function banned_at(id)
  local record = call('GET', ban_key(id))
  if not record then return (tonumber(call('ZSCORE', BANS, id) or nil) or 0) > now() and 0 or nil end
  local readable, ban = pcall(cjson.decode, record)
  if not readable or type(ban) ~= 'table' then return 0 end
  return tonumber(ban.at) or 0, ban.server
end

-- The same of the stored ban, where there is one: one whose record is gone counts as later.
local function is_later_ban(made, server, change, age)
  return made and (made == 0 or is_later(made, server, change, age))
end

-- Whether a ban that was made at `made` (ms) is not to be repeated: it has ended, was lifted since, or Redis has it, or
-- a later one.
local function is_outdated(id, made, ttl, age)
  local there, server = banned_at(id)
  if made + ttl <= now() or is_later_ban(there, server, made, age) then return true end
  local lifted_at, lifted_by = string.match(call('GET', lifted_key(id)) or '', '^(%d+) (%w*)')
  return lifted_at and is_later(tonumber(lifted_at), lifted_by, made, age)
end

-- The record of a ban that has not ended, or nil. What another program stored in its place is no ban, and would have
-- no end: it is renamed aside.
local function read_ban(id)
  local record = call('GET', ban_key(id))
  if not record then return nil end
  local readable, ban = pcall(cjson.decode, record)
  local ends_at = readable and type(ban) == 'table' and tonumber(ban['until']) or 0
  if ends_at > now() then return record end
  -- One that has just ended may still be there: keys expire by the time at which the script began.
  if ends_at < now() - 1000 then pcall(call, 'HLEN', ban_key(id)) end -- no hash, so that this renames it
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
