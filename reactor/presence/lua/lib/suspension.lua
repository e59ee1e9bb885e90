-- Suspension of expiry. Each node marks each shard as alive while Redis takes its writes. After a time without marks,
-- members look expired whose heartbeats could not arrive; and a server that no mark names (after a failover, or
-- restarted from a file) may have lost memberships that clients still hold. In both cases no expiry counts until every
-- node has registered its members again, or has had one whole lease to do so. Where the clock went back since the last
-- mark, no one knows how long ago that was: that counts as a time without marks, too.

-- The run id of the server to which the connection of this call was opened: the backend appends it to the arguments of
-- each script that uses it. A connection ends with the process of its server, so this is as exact as an INFO in the
-- script, which takes Redis 10 us. Only a proxy that keeps its clients connected while it goes to another server makes
-- it wrong, until the next mark: that asks the server itself.
local SERVER = table.remove(ARGV)

-- Whether a server is one of `servers`, run ids of primaries. A slot can move between those.
local function is_known_server(servers, server)
  return servers and string.find(servers, server, 1, true) ~= nil
end

local CLOCK_STEP = 1000 -- ms by which the clock went back, at least; less than that is not worth the work

-- Whether no node has marked the shard for a whole lease (ms), or may not have. at: the time of the last mark, or nil.
local function is_silent(at, lease) return not at or now() - at > lease or at - now() >= CLOCK_STEP end

-- The time (ms) until which no expiry counts, or nil; and whether there is no mark. A shard without one has no nodes to
-- wait for, or Redis has lost it.
local function expiry_suspended_until()
  local mark = call('HMGET', SHARD .. ':pulse', 'at', 'lease', 'hold', 'servers')
  local at, lease = tonumber(mark[1]), tonumber(mark[2])
  if not at or not lease then return nil, true end
  if is_silent(at, lease) or not is_known_server(mark[4], SERVER) then return now() + lease end
  local suspended_until = tonumber(mark[3]) or 0
  if suspended_until > now() + 10 * lease then return nil end -- set before the clock went back
  return now() < suspended_until and suspended_until or nil
end
