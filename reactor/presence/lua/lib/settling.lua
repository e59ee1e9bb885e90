-- Settling: the departures of members whose presence key is gone are made before a script answers, so that every
-- answer is exact. While expiry is suspended, and where Redis may evict keys, such members stay: they are suspended.

local read_only

-- Whether the Redis user may only read: then nothing is settled, and the answers are the same.
local function is_read_only()
  if read_only == nil then read_only = lacked_for_changes() ~= false end
  return read_only
end

local settled = {}

-- Settles a room, once in a call, by at most `limit` rows. Returns true when there was more to do, so that the caller
-- has to call again, and how many rows were examined. Usually no deadline has passed, which the first row shows.
local function settle_room(room, limit)
  limit = limit or MAX_ROWS
  if settled[room] then return false, 0 end
  local head = call('ZRANGE', members_key(room), 0, 0, 'WITHSCORES')
  if not head[1] or tonumber(head[2]) >= now() then
    settled[room] = true
    bounds[room] = tonumber(head[2])
    return false, 0
  end
  if is_read_only() then return false, 0 end
  if limit <= 0 then return true, 0 end
  local gone, examined = scan_deadlines(room, limit)
  local all = examined
  settled[room] = examined < limit
  if #gone == 0 then return examined == limit, all end
  if expiry_suspended_until() or may_evict() then
    while examined == limit do
      local more
      more, examined = scan_deadlines(room, limit, #gone)
      for _, user in ipairs(more) do gone[#gone + 1] = user end
      all = all + examined
    end
    return false, all
  end
  remove_members(room, gone)
  return examined == limit, all
end

-- Settles one member: 'alive', 'gone', or 'suspended' (it has expired, but its departure does not count yet).
local function settle_member(room, user)
  if redis.call('EXISTS', presence_key(room, user)) == 1 then return 'alive' end
  if not call('ZSCORE', members_key(room), user) then return 'gone' end
  if is_read_only() or expiry_suspended_until() or may_evict() then return 'suspended' end
  remove_members(room, { user })
  return 'gone'
end

-- A settled room's position: epoch ('' for a room without a member so far), version, and count. Suspended members are
-- not counted.
local function read_position(room)
  local state, members = call('HMGET', state_key(room), 'epoch', 'version'), members_key(room)
  if state[1] and not is_epoch(state[1]) then state[1] = nil end -- renamed aside by the next change
  local gone = call('ZCOUNT', members, '-inf', '(' .. now())
  if gone > 0 and is_read_only() then
    for _, user in ipairs(call('ZRANGE', members, '-inf', '(' .. now(), 'BYSCORE')) do
      gone = gone - redis.call('EXISTS', presence_key(room, user))
    end
  end
  return state[1] or '', tonumber(state[2]) or 0, call('ZCARD', members) - gone
end
