-- Settling: the departures of members whose presence key is gone are made before a script answers, so that every
-- answer is exact. While expiry is suspended such members stay, and are called suspended.

local read_only

-- Whether the Redis user may only read: then nothing is settled, and the answers are the same.
local function is_read_only()
  if read_only == nil then read_only = not redis.acl_check_cmd('ZREM', ROOMS, '') end
  return read_only
end

-- Settles a room. True when there was more than one call may do: the caller has to call again.
local function settle_room(room)
  if is_read_only() then return false end
  local gone, examined = scan_deadlines(room, MAX_ROWS)
  if #gone == 0 then return examined == MAX_ROWS end
  if expiry_suspended_until() then
    while examined == MAX_ROWS do
      local more
      more, examined = scan_deadlines(room, MAX_ROWS, #gone)
      for _, user in ipairs(more) do gone[#gone + 1] = user end
    end
    return false
  end
  remove_members(room, gone)
  return examined == MAX_ROWS
end

-- Settles one member: 'alive', 'gone', or 'suspended' (it has expired, but its departure does not count yet).
local function settle_member(room, user)
  if redis.call('EXISTS', presence_key(room, user)) == 1 then return 'alive' end
  if not redis.call('ZSCORE', members_key(room), user) then return 'gone' end
  if is_read_only() or expiry_suspended_until() then return 'suspended' end
  remove_members(room, { user })
  return 'gone'
end

-- A settled room's position: epoch ('' for a room without a member so far), version, and count. Suspended members are
-- not counted.
local function read_position(room)
  local state, members = redis.call('HMGET', state_key(room), 'epoch', 'version'), members_key(room)
  local gone = redis.call('ZCOUNT', members, '-inf', '(' .. now())
  if gone > 0 and is_read_only() then
    for _, user in ipairs(redis.call('ZRANGE', members, '-inf', '(' .. now(), 'BYSCORE')) do
      gone = gone - redis.call('EXISTS', presence_key(room, user))
    end
  end
  return state[1] or '', tonumber(state[2] or 0), redis.call('ZCARD', members) - gone
end
