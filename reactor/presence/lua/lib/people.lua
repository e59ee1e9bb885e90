-- The index of people. In the shard of a user: a record of the rooms in which the user may be, the set of the users who
-- have one, and when the others were last seen. It is no truth: a room is added before the join and removed after the
-- departure, so that it may name too much and never too little. A room counts, and makes its user online, once the join
-- is confirmed. A token, new for each join, distinguishes the memberships of a user in a room: a departure removes that
-- of its own join alone.
-- In the shard of a room: the departures that the index has yet to take in, written with each departure, so that no
-- crash loses one.

local EXITS = SHARD .. ':exits' -- ROOM:user:USER -> last activity and tokens, until the index has it
local PEOPLE = SHARD .. ':people'
local SEEN = SHARD .. ':seen' -- user -> last activity (ms) before the last departure
local AWAY_MARK = '~' -- precedes the token of a room in which the user is away
local JOINING_MARK = '?' -- precedes the token of a room whose join is not confirmed

-- A record's fields: rooms (escaped, so without a colon) and their tokens; `:s` the time since when the user is
-- online, which is there while any room counts; `:l` the last activity so far, of departures and before; `:a` the
-- number of rooms in which the user is away; `:u` the number of rooms whose join is not confirmed.
local function person_key(user) return SHARD .. ':person:' .. user end

-- Until when a user's activity was erased; kept for a while, since departures from before that may yet be taken in.
local function erased_key(user) return SHARD .. ':erased:' .. user end

-- Appends a departure to `exits`, for the index. Without a token the index was off when the member joined.
local function append_exit(exits, room, user, tokens, last_active)
  if not tokens then return end
  exits[#exits + 1] = room .. ':user:' .. user
  exits[#exits + 1] = last_active .. ' ' .. tokens
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

-- How many rooms of a record count, in how many of them the user is away, and the last activity so far.
local function read_counts(person)
  local noted = call('HMGET', person, ':s', ':l', ':a', ':u')
  local rooms = call('HLEN', person) - (tonumber(noted[4]) or 0)
  for i = 1, 4 do
    if noted[i] then rooms = rooms - 1 end
  end
  return rooms, tonumber(noted[3]) or 0, tonumber(noted[2])
end

-- So many rooms with an unconfirmed join less.
local function end_joining(person, count)
  if call('HINCRBY', person, ':u', -count) <= 0 then call('HDEL', person, ':u') end
end

-- Notifies those who follow the user. at: since when the user is online, or was last seen (ms, 0 for unknown).
-- change: '+' or '-' and the room, or ''.
local function publish_person(user, status, at, change)
  redis.call(PUBLISH, CHANNELS .. ':person:' .. user, cmsgpack.pack({ status, at, change }))
end

-- Appends that a user went online or offline to the log for webhooks, which exists only where these are in use.
local function log_person(user, status, at)
  call('XADD', CHANGES, 'NOMKSTREAM', 'MAXLEN', '~', DEPARTURES_KEPT, '*', 'person', ':' .. user,
    'change', cmsgpack.pack({ status, at }))
end
