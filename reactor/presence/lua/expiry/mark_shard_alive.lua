-- Marks the shard as alive: a node runs, and this shard takes its writes. After a time without any mark, or on a server
-- that no mark names, expiry is suspended for one lease; on a new server not longer than until all nodes have
-- registered their members. An empty shard has no members to wait for.
-- ARGV: lease (ms); servers (run ids of the primaries that the node knows); all_there ('1' when every node has
--       registered its members on these, else '0')
-- Returns: the time (ms) until which expiry is suspended, or 0
-- Publishes: nothing
-- In the mark, `hold` is the time until which expiry is suspended, and `moved` is '1' where that began on a new server.
local lease, servers, all_there = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'
local mark = SHARD .. ':pulse'
local before = redis.call('HMGET', mark, 'at', 'hold', 'servers', 'moved')
local suspended_until, moved, known = tonumber(before[2] or 0), before[4] == '1', before[3] or ''
local silent, new = not before[1] or now() - before[1] > lease, not is_known_server(known)
if (silent or new) and redis.call('EXISTS', ROOMS) == 1 then
  suspended_until, moved = now() + lease, new
end
if is_known_server(servers) then
  known = servers
  if moved and all_there then suspended_until, moved = 0, false end
elseif new then
  known = known .. ' ' .. run_id()
end
redis.call('HSET', mark, 'at', now(), 'lease', lease, 'hold', suspended_until, 'servers', known,
  'moved', moved and '1' or '0')
redis.call('PEXPIRE', mark, 86400000)
return suspended_until > now() and suspended_until or 0
