-- The format of the namespace: one hash, which all programs on it agree on. See presence/format.py.

local FORMAT = SHARD .. ':format'

-- A field that is a whole number up to 99999, else nil: what another program wrote there, such as `nan` or `-1`, is
-- no format that a node would have to stop for.
local function plain_number(field)
  return tonumber(string.match(field or '', '^%d%d?%d?%d?%d?$') or nil)
end

-- The stored number and the shards; nil where the namespace has no format, or an unreadable one.
local function read_format()
  local stored = call('HMGET', FORMAT, 'number', 'shards')
  local number, shards = plain_number(stored[1]), plain_number(stored[2])
  if number and shards and shards > 0 then return number, shards end
end

-- The newest format that a registered node speaks, and its shards; nil for an entry of another kind.
-- An entry is 'COUNTER INSTANCE REGISTERED_IN OLDEST-NEWEST/SHARDS RELEASE ABOUT', see `NodeRecord`.
local function node_format(entry)
  local newest, shards = string.match(entry, '^%S+ %S+ %S+ %d+%-(%d+)/(%d+) ')
  return tonumber(newest), tonumber(shards)
end

-- Notes that a node of this release runs, at most once in a day; releases that were not seen for a month are forgotten.
local function note_release(release)
  local field = 'release:' .. release
  local seen = tonumber(call('HGET', FORMAT, field) or nil)
  if seen and math.abs(now() - seen) < 86400000 then return end
  local flat = call('HGETALL', FORMAT)
  for i = 1, #flat, 2 do
    local old = string.find(flat[i], '^release:') and now() - (tonumber(flat[i + 1]) or 0) > 30 * 86400000
    if old then call('HDEL', FORMAT, flat[i]) end
  end
  call('HSET', FORMAT, field, now())
end
