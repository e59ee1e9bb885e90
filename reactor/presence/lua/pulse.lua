-- A node lives, and this shard takes its writes. After a time without any pulse, or on a server that the pulses do not
-- know, ends by time do not count until all could speak up again for one lease; on a new server not longer than until
-- all have. A shard with nobody in it has nobody to wait for.
-- ARGV: lease (ms); servers (run ids of the primaries that the node knows); all_there ('1' when every node has entered
--       its members on these, else '0')
-- Returns: the time until which ends by time do not count, or 0
-- Publishes: nothing
local lease, servers, all_there = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'
local key = SHARD .. ':pulse'
local before = redis.call('HMGET', key, 'at', 'hold', 'servers', 'moved')
local hold, moved, known = tonumber(before[2] or 0), before[4] == '1', before[3] or ''
local silent, new = not before[1] or NOW - before[1] > lease, not is_known(known)
if (silent or new) and redis.call('EXISTS', ROOMS) == 1 then
  hold, moved = NOW + lease, new
end
if is_known(servers) then
  known = servers
  if moved and all_there then hold, moved = 0, false end
elseif new then
  known = known .. ' ' .. run_id()
end
redis.call('HSET', key, 'at', NOW, 'lease', lease, 'hold', hold, 'servers', known, 'moved', moved and '1' or '0')
redis.call('PEXPIRE', key, 86400000)
return hold > NOW and hold or 0
