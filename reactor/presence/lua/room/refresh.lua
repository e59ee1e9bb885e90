-- Heartbeats of one node's members: each presence key gets its full TTL again. No index is written, since the stored
-- deadlines are lower bounds and remain so. PEXPIREAT comes first: HSET would create an expired key anew, without an
-- expiry. It takes an absolute time, because a server that was paused reads its clock for a TTL some milliseconds
-- apart from that for TIME. Where the TTL was shortened since, the stored deadlines are lowered.
-- A fenced node's heartbeats come too late and are all refused.
-- ARGV: node; then for each member: suffix (ROOM:user:USER, escaped), ttl (ms)
-- Returns: {now, a text with '1' for each member that is alive, '0' for each that is not}
-- Publishes: a wake-up, where a TTL was shortened
local node, time = ARGV[1], now()
local time_digits, deadlines = digits(time), {} -- deadlines: as text, by TTL
if redis.call('EXISTS', fence_key(node)) == 1 then
  return { time, string.rep('0', (#ARGV - 1) / 2) }
end
local function shorten(suffix, presence, ttl)
  if redis.call('PEXPIREAT', presence, time + ttl) == 0 then return false end
  local room, user = string.match(suffix, '^(.*):user:(.*)$')
  call('ZADD', members_key(room), 'XX', 'LT', time + ttl, user)
  note_activity(room, user, time_digits)
  lower_room_deadline(room, time + ttl)
  return true
end

local alive = {}
for i = 2, #ARGV, 2 do
  local presence = SHARD .. ':room:' .. ARGV[i]
  local ttl = ARGV[i + 1]
  local deadline = deadlines[ttl] or digits(time + ttl)
  deadlines[ttl] = deadline
  local there = redis.call('PEXPIREAT', presence, deadline, 'GT') == 1
  if not there then there = shorten(ARGV[i], presence, ttl) end
  -- `pcall`, because a key that was edited externally and is no hash must not fail the other members' heartbeats.
  if there and type(redis.pcall('HSET', presence, 'lastActiveAt', time_digits)) == 'number' then
    alive[#alive + 1] = '1'
  else
    alive[#alive + 1] = '0'
  end
end
return { time, table.concat(alive) }
