-- Removes rooms from the records of users, after departures and joins that were refused. The last one that counts takes
-- a user offline. A room with another token belongs to a later join, or to one that never came about.
-- ARGV: keep (ms for which it is kept when users were last seen; 0 for not at all); then for each member: user, room;
--       tokens (of the joins to the membership that has ended, between spaces); last_active (ms; '' for a join that was
--       refused)
-- Returns: for each room with another token: the place of the departure, counted from 1; that token
-- Publishes: a change of each person
demand_right_to_change()
local reply, keep, noted = {}, tonumber(ARGV[1]), false

-- Whether a user's activity was erased after that time, so that it is not noted again.
local function is_erased(user, last) return last <= tonumber(call('GET', erased_key(user)) or 0) end

-- Notes the last activity of a user who is offline; returns it, 0 where it is not kept, and that before.
local function note_seen(user, last)
  if last <= 0 or keep <= 0 or is_erased(user, last) then return 0, 0 end
  local before = tonumber(call('ZSCORE', SEEN, user) or 0)
  if before <= now() then last = math.max(before, last) end
  if last ~= before then call('ZADD', SEEN, string.format('%.0f', last), user) end
  noted = true
  return last, before
end

-- Removes rooms from a user's record. exits: the places of the departures in ARGV.
local function exit(user, exits)
  local person, rooms = person_key(user), {}
  for n, i in ipairs(exits) do rooms[n] = ARGV[i + 1] end
  local values, left, counted, marks, active = call('HMGET', person, unpack(rooms)), {}, {}, {}, nil
  for n, i in ipairs(exits) do
    local present, mark = split_token(values[n] or '')
    local ended = string.find(' ' .. ARGV[i + 2] .. ' ', ' ' .. present .. ' ', 1, true)
    if values[n] and not ended then
      reply[#reply + 1] = (i + 2) / 4
      reply[#reply + 1] = present
    elseif values[n] and not marks[rooms[n]] then
      left[#left + 1] = rooms[n]
      marks[rooms[n]] = mark
      if mark ~= JOINING_MARK then counted[#counted + 1] = rooms[n] end
    end
    -- Where the clock of the server went back, an activity before that is later than now.
    local last_active = tonumber(ARGV[i + 3])
    if last_active then active = math.max(active or 0, math.min(last_active, now())) end
  end
  if #left == 0 and not active then return end

  local remaining, away_rooms, last = read_counts(person)
  local was_online = remaining > 0
  last = math.min(math.max(active or 0, last or 0), now())
  if #left > 0 then call('HDEL', person, unpack(left)) end
  if #left > #counted then end_joining(person, #left - #counted) end
  if not was_online then
    local seen, before = note_seen(user, active or 0)
    if seen > before then publish_person(user, 'offline', seen, '') end
  elseif remaining == #counted then
    call('HDEL', person, ':s', ':l', ':a')
    last = note_seen(user, last)
    log_person(user, 'offline', last)
  elseif active and keep > 0 and not is_erased(user, last) then
    call('HSET', person, ':l', string.format('%.0f', last))
  end
  if #left > 0 and redis.call('EXISTS', person) == 0 then call('SREM', PEOPLE, user) end

  local gone_away = 0
  for _, room in ipairs(counted) do
    remaining = remaining - 1
    if marks[room] == AWAY_MARK then gone_away = gone_away + 1 end
    local status = status_of(remaining, away_rooms - gone_away)
    publish_person(user, status, remaining == 0 and last or 0, '-' .. room)
  end
  if gone_away > 0 and remaining > 0 then call('HINCRBY', person, ':a', -gone_away) end
end

local by_user, order = {}, {}
for i = 2, #ARGV, 4 do
  local user = ARGV[i]
  if not by_user[user] then
    by_user[user] = {}
    order[#order + 1] = user
  end
  table.insert(by_user[user], i)
end
for _, user in ipairs(order) do exit(user, by_user[user]) end
if noted then redis.call('PEXPIRE', SEEN, keep) end
return reply
