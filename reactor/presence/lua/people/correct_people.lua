-- Corrects what records say of rooms, by the presence keys: confirms joins, so that the rooms count from here on, notes
-- whether the user is away there, and the token where that of a join was stored that never came about. The first room
-- that counts brings a user online.
-- ARGV: for each member: user, room; token ('' for any: nothing is done where the record has another); new_token
--       ('' to keep it); away ('1' or '0')
-- Returns: the place of each whose record lacks the room, counted from 1
-- Publishes: a change of each person whose status or rooms changed
demand_right_to_change()
local missing = {}

local function come_online(user, person, status, room)
  local seen = call('ZSCORE', SEEN, user)
  call('HSET', person, ':s', now())
  if seen then
    call('HSET', person, ':l', seen)
    call('ZREM', SEEN, user)
  end
  publish_person(user, status, now(), '+' .. room)
  log_person(user, 'online', now())
end

for i = 1, #ARGV, 5 do
  local user, room, token, new_token = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local person, away = person_key(user), ARGV[i + 4] == '1'
  local found = call('HGET', person, room)
  local present, mark = split_token(found or '')
  if not found then
    missing[#missing + 1] = (i + 4) / 5
  elseif token == '' or token == present then
    local rooms, away_rooms = read_counts(person)
    local before, joining = status_of(rooms, away_rooms), mark == JOINING_MARK
    if new_token ~= '' then present = new_token end
    local value = away and AWAY_MARK .. present or present
    if value ~= found then call('HSET', person, room, value) end
    if joining then
      rooms = rooms + 1
      end_joining(person, 1)
    end
    local change = (away and 1 or 0) - (mark == AWAY_MARK and 1 or 0)
    if change ~= 0 then away_rooms = call('HINCRBY', person, ':a', change) end
    local status = status_of(rooms, away_rooms)
    if before == 'offline' then
      come_online(user, person, status, room)
    elseif joining or status ~= before then
      publish_person(user, status, 0, joining and '+' .. room or '')
    end
  end
end
return missing
