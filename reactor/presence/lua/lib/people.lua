-- The index of people. In the shard of a user: a record of the rooms in which the user may be, the set of the users who
-- have one, and when the others were last seen. It is no truth: it may name too much and never too little. A token, new
-- for each join, distinguishes the memberships of a user in a room: a departure removes that of its own join alone.
-- On one server a join adds its room, and a departure removes it, in the script that makes it. On a cluster the user
-- may be in a shard of another server: a room is added before the join, and counts, and makes its user online, once the
-- join is confirmed; a departure is noted in the shard of the room until the index has taken it in.

-- ROOM:user:USER -> last activity and tokens, until the index has it. In the shard of the room.
local function exits_key(shard) return shard .. ':exits' end
local AWAY_MARK = '~' -- precedes the token of a room in which the user is away
local JOINING_MARK = '?' -- precedes the token of a room whose join is not confirmed

-- `home` is what the keys of a user's shard start with. A record's fields: rooms (escaped, so without a colon) and
-- their tokens; `:s` the time since when the user is online, which is there while any room counts; `:l` the last
-- activity so far, of departures and before; `:a` the number of rooms in which the user is away; `:u` the number of
-- rooms whose join is not confirmed.
local function person_key(home, user) return home .. ':person:' .. user end
local function people_key(home) return home .. ':people' end
local function seen_key(home) return home .. ':seen' end -- user -> last activity (ms) before the last departure

-- Until when a user's activity was erased; kept for a while, since departures from before that may yet be taken in.
local function erased_key(home, user) return home .. ':erased:' .. user end

-- Notes departures, each as {room, user, tokens, last activity}, for the index.
local function note_exits(exits)
  local flat = {}
  for _, exit in ipairs(exits) do
    flat[#flat + 1] = exit[1] .. ':user:' .. exit[2]
    flat[#flat + 1] = exit[4] .. ' ' .. exit[3]
  end
  if #flat > 0 then call('HSET', exits_key(SHARD), unpack(flat)) end
end

-- The tokens of a membership with one more, the newest first. Three are kept, since of joins at the same moment the
-- index may hold another than the one that Redis took last.
local function add_token(tokens, token)
  return tokens and token .. ' ' .. (string.match(tokens, '^%S+ %S+') or tokens) or token
end

-- The token of a room in a record, and its mark: '' while the user is online there.
local function split_token(value)
  local mark = string.sub(value, 1, 1)
  if mark == AWAY_MARK or mark == JOINING_MARK then return string.sub(value, 2), mark end
  return value, ''
end

local function status_of(rooms, away)
  if rooms == 0 then return 'offline' end
  return away >= rooms and 'away' or 'online'
end

-- So many rooms with an unconfirmed join less.
local function end_joining(person, count)
  if call('HINCRBY', person, ':u', -count) <= 0 then call('HDEL', person, ':u') end
end

-- Notifies those who follow the user. at: since when the user is online, or was last seen (ms, 0 for unknown).
-- change: '+' or '-' and the room, or ''.
local function publish_person(home, user, status, at, change)
  redis.call(PUBLISH, home .. DATABASE .. ':person:' .. user, cmsgpack.pack({ status, at, change }))
end

-- Appends that a user went online or offline to the log for webhooks, which exists only where these are in use.
local function log_person(home, user, status, at)
  if has_log(home) then
    call('XADD', home .. ':changes', 'NOMKSTREAM', 'MAXLEN', '~', DEPARTURES_KEPT, '*', 'person', ':' .. user,
      'change', cmsgpack.pack({ status, at }))
  end
end

-- Has a room count in a user's record, with the token of its join, and whether the user is away there. The first room
-- that counts brings the user online. stored: what the record has of the room, and of `:s`.
local function count_room(home, user, room, stored, token, away)
  local person, found, is_online = person_key(home, user), stored[1], stored[2]
  local _, mark = split_token(found or JOINING_MARK)
  local added, more_away = mark == JOINING_MARK, (away and 1 or 0) - (mark == AWAY_MARK and 1 or 0)
  local before, status = 'offline', away and 'away' or 'online'
  if is_online and (away or more_away ~= 0) then
    local counts = call('HMGET', person, ':l', ':a', ':u')
    local rooms, away_rooms = call('HLEN', person) - 1 - (tonumber(counts[3]) or 0), tonumber(counts[2]) or 0
    for i = 1, 3 do
      if counts[i] then rooms = rooms - 1 end
    end
    before = status_of(rooms, away_rooms)
    status = status_of(added and rooms + 1 or rooms, away_rooms + more_away)
  elseif is_online then
    before = status
  end

  local fields, seen = { room, away and AWAY_MARK .. token or token }, nil
  if not is_online then
    fields[3], fields[4] = ':s', digits(now())
    seen = call('ZSCORE', seen_key(home), user)
    if seen then fields[5], fields[6] = ':l', seen end
  end
  if #fields > 2 or fields[2] ~= found then call('HSET', person, unpack(fields)) end
  if not found and not is_online then call('SADD', people_key(home), user) end
  if seen then call('ZREM', seen_key(home), user) end
  if found and added then end_joining(person, 1) end
  if more_away ~= 0 then call('HINCRBY', person, ':a', more_away) end

  if not is_online then
    publish_person(home, user, status, now(), '+' .. room)
    log_person(home, user, 'online', now())
  elseif added or status ~= before then
    publish_person(home, user, status, 0, added and '+' .. room or '')
  end
end

local erasures = { possible = true } -- `possible`: false where none of the call's users has one

-- Whether a user's activity was erased after that time, so that it is not noted again.
local function is_erased(home, user, last)
  return erasures.possible and last <= tonumber(redis.call('GET', erased_key(home, user)) or 0)
end

local ends = {} -- by home: what `write_ends` has yet to write of users who left

-- Keys of records, users whose records these are, and last activities with their users.
local function ends_of(home)
  ends[home] = ends[home] or { records = {}, users = {}, seen = {} }
  return ends[home]
end

-- Notes the last activity of a user who is offline; returns that, or 0 where it is not kept.
local function note_seen(home, user, last, keep)
  if last <= 0 or keep <= 0 or is_erased(home, user, last) then return 0 end
  local seen = ends_of(home).seen
  seen[#seen + 1] = digits(last)
  seen[#seen + 1] = user
  return last
end

-- Writes what `remove_rooms` left to be written for several users at once.
local function write_ends(keep)
  for home, left in pairs(ends) do
    if #left.users > 0 then
      redis.call('DEL', unpack(left.records))
      call('SREM', people_key(home), unpack(left.users))
    end
    if #left.seen > 0 then
      call('ZADD', seen_key(home), unpack(left.seen))
      redis.call('PEXPIRE', seen_key(home), keep)
    end
  end
end

-- Removes rooms from a user's record, after departures, each as {room, user, tokens, last activity}, and joins that
-- were refused ('' as last activity). The last room that counts takes the user offline. A room with another token
-- belongs to a later join, or to one that never came about. keep: ms for which it is kept when users were last seen, 0
-- for not at all. A part is left to `write_ends`. Returns those with another token, each as {exit, that token}.
local function remove_rooms(home, user, exits, keep)
  local person, names = person_key(home, user), {}
  for n, exit in ipairs(exits) do names[n] = exit[1] end
  for _, field in ipairs({ ':s', ':l', ':a', ':u' }) do names[#names + 1] = field end
  local values, size = call('HMGET', person, unpack(names)), call('HLEN', person)
  local other, left, counted, marks, active = {}, {}, {}, {}, nil
  for n, exit in ipairs(exits) do
    local room, present, mark = exit[1], split_token(values[n] or '')
    local ended = string.find(' ' .. exit[3] .. ' ', ' ' .. present .. ' ', 1, true)
    if values[n] and not ended then
      other[#other + 1] = { exit, present }
    elseif values[n] and not marks[room] then
      left[#left + 1] = room
      marks[room] = mark
      if mark ~= JOINING_MARK then counted[#counted + 1] = room end
    end
    -- Where the clock of the server went back, an activity before that is later than now.
    local last_active = tonumber(exit[4])
    if last_active then active = math.max(active or 0, math.min(last_active, now())) end
  end
  if #left == 0 and not active then return other end

  local joining, away_rooms = tonumber(values[#exits + 4]) or 0, tonumber(values[#exits + 3]) or 0
  local remaining = size - joining
  for n = #exits + 1, #exits + 4 do
    if values[n] then remaining = remaining - 1 end
  end
  local was_online, ended = remaining > 0, #left - #counted
  local goes_offline = was_online and remaining == #counted
  local last = math.min(math.max(active or 0, tonumber(values[#exits + 2]) or 0), now())
  if remaining == #counted and joining == ended then -- no room is left
    if size > 0 then
      local left_here = ends_of(home)
      table.insert(left_here.records, person)
      table.insert(left_here.users, user)
    end
  else
    if #left > 0 then call('HDEL', person, unpack(left)) end
    if ended > 0 then end_joining(person, ended) end
    if goes_offline then call('HDEL', person, ':s', ':l', ':a') end
  end
  if goes_offline then
    last = note_seen(home, user, last, keep)
    log_person(home, user, 'offline', last)
  elseif was_online then
    if active and keep > 0 and not is_erased(home, user, last) then
      call('HSET', person, ':l', digits(last))
    end
  else
    local before, seen = tonumber(call('ZSCORE', seen_key(home), user) or 0), active or 0
    if before <= now() then seen = math.max(before, seen) end
    if seen ~= before and note_seen(home, user, seen, keep) > before then
      publish_person(home, user, 'offline', seen, '')
    end
  end

  local gone_away = 0
  for _, room in ipairs(counted) do
    remaining = remaining - 1
    if marks[room] == AWAY_MARK then gone_away = gone_away + 1 end
    local status = status_of(remaining, away_rooms - gone_away)
    publish_person(home, user, status, remaining == 0 and last or 0, '-' .. room)
  end
  if gone_away > 0 and remaining > 0 then call('HINCRBY', person, ':a', -gone_away) end
  return other
end

-- Departures by user, and the users in their order.
local function exits_by_user(exits)
  local by_user, order = {}, {}
  for _, exit in ipairs(exits) do
    local user = exit[2]
    if not by_user[user] then
      by_user[user] = {}
      order[#order + 1] = user
    end
    table.insert(by_user[user], exit)
  end
  return by_user, order
end

-- Takes departures into the records of their users, each in the shard that `homes` names. What cannot be taken in, as
-- where a record has another token, is noted.
local function take_in_exits(exits, homes, keep)
  if #exits == 0 then return end
  local by_user, order = exits_by_user(exits)
  local noted = {}
  for _, user in ipairs(order) do
    local taken, other = pcall(remove_rooms, homes[user], user, by_user[user], keep)
    for _, exit in ipairs(taken and other or by_user[user]) do noted[#noted + 1] = taken and exit[1] or exit end
  end
  note_exits(pcall(write_ends, keep) and noted or exits)
end
