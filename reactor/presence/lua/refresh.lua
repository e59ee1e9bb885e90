-- Heartbeats of one node, many at once: each presence key gets its whole life again. No index is written: the noted
-- deadline is a lower bound and stays one. PEXPIREAT comes first, since HSET would make a lapsed key anew, without end.
-- By NOW and not by a time to live: a server that was paused reads its clock for the two some milliseconds apart.
-- Where terms became shorter meanwhile, what is noted is no lower bound any more, and is lowered.
-- The heartbeats of a node that was judged lost come too late and are refused as a whole.
-- ARGV: node; then for each member: suffix (ROOM:user:USER, escaped), ttl (ms)
-- Returns: {now, a text with '1' for each member that is alive, '0' for each that is not}
-- Publishes: a wake-up, where terms became shorter
local node = ARGV[1]
if redis.call('EXISTS', fenced_key(node)) == 1 then
  return { NOW, string.rep('0', (#ARGV - 1) / 2) }
end
local function shorten(suffix, presence, ttl)
  if redis.call('PEXPIREAT', presence, NOW + ttl) == 0 then return false end
  local room, user = string.match(suffix, '^(.*):user:(.*)$')
  redis.call('ZADD', members_key(room), 'XX', 'LT', NOW + ttl, user)
  lower(room, NOW + ttl)
  return true
end

local alive = {}
for i = 2, #ARGV, 2 do
  local presence = SHARD .. ':room:' .. ARGV[i]
  -- By `pcall`: a key that a hand made something else is one member's trouble, and the others' heartbeats count.
  local there = redis.call('PEXPIREAT', presence, NOW + ARGV[i + 1], 'GT') == 1
  if not there then there = shorten(ARGV[i], presence, ARGV[i + 1]) end
  if there and type(redis.pcall('HSET', presence, 'lastActiveAt', NOW)) == 'number' then
    alive[#alive + 1] = '1'
  else
    alive[#alive + 1] = '0'
  end
end
return { NOW, table.concat(alive) }
