-- Marks the shard as alive: a node runs, and this shard takes its writes. After a time without any mark, on a server
-- that no mark names, or where the clock went back since the last mark, expiry is suspended for one lease; on a new
-- server not longer than until all nodes have registered their members. An empty shard has no members to wait for.
-- ARGV: lease (ms); servers (run ids of the primaries that the node knows); all_there ('1' when every node has
--       registered its members on these, else '0')
-- Returns: {the time (ms) until which expiry is suspended, or 0; the ms by which the clock went back since the last
--          mark, at least, or 0: who learns of that has to call `follow_clock` for each room; 1 where the rooms are of
--          a server that no mark named, and not all nodes have registered their members on it since, else 0}
-- Publishes: nothing
-- In the mark, `hold` is the time until which expiry is suspended, and `moved` is '1' where that began on a new server.
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'unknown' -- as in clients.py
local lease, servers, all_there = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'
local mark = SHARD .. ':pulse'
local before = call('HMGET', mark, 'at', 'hold', 'servers', 'moved', 'evicted')
local at, suspended_until = tonumber(before[1]), tonumber(before[2]) or 0
local moved, known = before[4] == '1', before[3] or ''
local step = at and at - now() or 0
if step < CLOCK_STEP then step = 0 end
if suspended_until > now() + 10 * lease then suspended_until = 0 end -- set before the clock went back
local silent, new = is_silent(at, lease), not is_known_server(known, run_id)
local uncertain = (silent or new or moved) and redis.call('EXISTS', ROOMS) == 1
local restored = uncertain and (new or moved)
if uncertain and (silent or new) then suspended_until, moved = now() + lease, new end
if is_known_server(servers, run_id) then
  known = servers
  if moved and all_there then suspended_until, moved = 0, false end
elseif new then
  known = known .. ' ' .. run_id
end
-- A service may answer INFO itself, or refuse it to clients alone, so that calls name the server otherwise.
if SERVER ~= 'none' and not is_known_server(known, SERVER) then known = known .. ' ' .. SERVER end
call('HSET', mark, 'at', now(), 'lease', lease, 'hold', suspended_until, 'servers', known,
  'moved', moved and '1' or '0')
local evicted = evicted_keys()
if evicted and evicted ~= tonumber(before[5] or nil) then
  call('HSET', mark, 'evicted', evicted, 'evicted_at', now())
end
redis.call('PEXPIRE', mark, 86400000)
return { suspended_until > now() and suspended_until or 0, step, restored and 1 or 0 }
