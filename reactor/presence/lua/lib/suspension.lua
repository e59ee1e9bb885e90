-- Suspension of expiry. Each node marks each shard as alive while Redis takes its writes. After a time without marks,
-- members look expired whose heartbeats could not arrive; and a server that no mark names (after a failover, or
-- restarted from a file) may have lost memberships that clients still hold. In both cases no expiry counts until every
-- node has registered its members again, or has had one whole lease to do so.

local known_run_id

-- The run id costs an INFO, 8 to 12 us: it is read only where it decides, and once.
local function run_id()
  known_run_id = known_run_id or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  return known_run_id
end

-- Whether this server is one of `servers`, run ids of primaries. A slot can move between those.
local function is_known_server(servers) return servers and string.find(servers, run_id(), 1, true) ~= nil end

-- The time (ms) until which no expiry counts, or nil. A shard without any mark has no nodes to wait for.
local function expiry_suspended_until()
  local mark = redis.call('HMGET', SHARD .. ':pulse', 'at', 'lease', 'hold', 'servers')
  if not mark[1] then return nil end
  local lease = tonumber(mark[2])
  if now() - mark[1] > lease or not is_known_server(mark[4]) then return now() + lease end
  local suspended_until = tonumber(mark[3] or 0)
  return now() < suspended_until and suspended_until or nil
end
