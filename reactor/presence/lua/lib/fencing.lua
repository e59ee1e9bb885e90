-- Fences. A node that was judged lost may resume without knowing it: its calls are refused until it takes a new name.
-- A connection is fenced after it was detached while its join got no reply, since that join may still arrive.

local FENCE_TTL = 3600000 -- ms

local function fence_key(name) return SHARD .. ':fenced:' .. name end
local function fence(name) redis.call('SET', fence_key(name), 1, 'PX', FENCE_TTL) end
