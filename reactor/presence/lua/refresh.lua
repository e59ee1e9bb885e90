-- Heartbeats of one node, many at once: each presence key gets its whole life again. No index is written: the noted
-- deadline is a lower bound and stays one. PEXPIRE comes first, since HSET would make a lapsed key anew, without end.
-- The heartbeats of a node that was judged lost come too late and are refused as a whole.
-- ARGV: node; then for each member: suffix (ROOM:user:USER, escaped), ttl (ms)
-- Returns: {now, a text with '1' for each member that is alive, '0' for each that is not}
-- Publishes: nothing
local node = ARGV[1]
if redis.call('EXISTS', fenced_key(node)) == 1 then
  return { NOW, string.rep('0', (#ARGV - 1) / 2) }
end
local alive = {}
for i = 2, #ARGV, 2 do
  local presence = SHARD .. ':room:' .. ARGV[i]
  -- By `pcall`: a key that a hand made something else is one member's trouble, and the others' heartbeats count.
  local there = redis.call('PEXPIRE', presence, ARGV[i + 1]) == 1
  if there and type(redis.pcall('HSET', presence, 'lastActiveAt', NOW)) == 'number' then
    alive[#alive + 1] = '1'
  else
    alive[#alive + 1] = '0'
  end
end
return { NOW, table.concat(alive) }
