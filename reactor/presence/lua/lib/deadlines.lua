-- Deadlines are lower bounds on two levels: members within a room, rooms within the shard. A heartbeat only extends
-- the presence key. `scan_deadlines` moves bounds forward; whatever shortens a member's life lowers them at once.

local MAX_ROWS = 1000 -- examined in one call at most, so that no call blocks Redis for more than a few milliseconds
local PERMANENT_RECHECK = 60000 -- ms until a key that was made permanent externally is examined again

local bounds = {} -- by room: a time (ms) that its stored deadline is known not to exceed

-- Lowers the room's deadline if this one is nearer, and wakes the pacemaker if it is the shard's nearest.
local function lower_room_deadline(room, deadline)
  if bounds[room] and bounds[room] <= deadline then return end
  bounds[room] = deadline
  if call('ZADD', ROOMS, 'LT', 'CH', deadline, room) == 1 then
    if call('ZRANGE', ROOMS, 0, 0)[1] == room then redis.call(PUBLISH, CHANNELS .. ':wake', deadline) end
  end
end

-- Keeps a member's last activity (ms, as text), as `scan_deadlines` does. Whatever stores the deadline that the key has
-- at that moment has to: where the member is silent from there on, no scan finds the key alive again.
local function note_activity(room, user, active) call('HSET', shadow_key(room, user), 'a', active) end

-- Examines members of a room whose stored deadline has passed. Those alive get their true deadline, and their last
-- activity is copied to the shadow, since it vanishes with the presence key. Reading an expired key makes Redis
-- delete it and publish the event. Returns the users whose key is gone, and how many rows were examined.
local function scan_deadlines(room, limit, offset)
  local members, gone = members_key(room), {}
  local due = call('ZRANGE', members, '-inf', '(' .. now(), 'BYSCORE', 'LIMIT', offset or 0, limit)
  for _, user in ipairs(due) do
    local presence = presence_key(room, user)
    local deadline = redis.call('PEXPIRETIME', presence)
    if deadline == -2 then
      gone[#gone + 1] = user
    else
      if deadline == -1 then deadline = now() + PERMANENT_RECHECK end
      -- Redis 7.0 reads TIME later than the clock by which it expires keys: examine the row again in the next
      -- millisecond.
      if deadline < now() then deadline = now() end
      call('ZADD', members, digits(deadline), user)
      call('HSET', shadow_key(room, user), 'a', read_last_active(room, user) or now())
    end
  end
  return gone, #due
end
