-- Eviction. Where Redis may evict keys, a presence key that is gone is no proof that its TTL ended: only the `expired`
-- event is, or that no node has a connection with a heartbeat within the TTL. So there nothing but a claim, which
-- follows one of these, makes the departure.

local known_eviction

local EVICTED_HOLD = 300000 -- ms after the last eviction; by then the nodes' audits have restored what was lost

-- How many keys this server has evicted since its statistics were reset, or nil where INFO may not be read.
local function evicted_keys()
  local stats = redis.pcall('INFO', 'stats')
  return type(stats) == 'string' and tonumber(string.match(stats, 'evicted_keys:(%d+)')) or nil
end

-- Whether this server may evict keys, or has lately. INFO is read only where a presence key was found gone, and once.
local function may_evict()
  if known_eviction == nil then
    local memory = redis.pcall('INFO', 'memory')
    local shown = type(memory) == 'string' and memory or ''
    local limit = tonumber(string.match(shown, 'maxmemory:(%d+)')) or 0
    known_eviction = limit > 0 and string.match(shown, 'maxmemory_policy:(%w[%w-]*)') ~= 'noeviction'
    local evicted = evicted_keys() or 0
    if evicted > 0 and not known_eviction then
      -- Each mark notes the number, and when it changed.
      local seen = call('HMGET', SHARD .. ':pulse', 'evicted', 'evicted_at')
      local since = now() - (tonumber(seen[2]) or now()) -- less than 0 where the clock went back: careful, too
      known_eviction = tonumber(seen[1]) ~= evicted or since < EVICTED_HOLD
    end
  end
  return known_eviction
end
