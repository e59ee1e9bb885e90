-- Fences. A node that was judged lost may resume without knowing it: its calls are refused until it takes a new name.
-- A connection is fenced from one membership after it was detached there while its join got no reply, since that join
-- may still arrive. In other rooms it goes on.

local FENCE_TTL = 3600000 -- ms

local function fence_key(name) return SHARD .. ':fenced:' .. name end
local function join_fence(connection, room, user) return connection .. ':' .. room .. ':user:' .. user end
local function fence(name) redis.call('SET', fence_key(name), 1, 'PX', FENCE_TTL) end
