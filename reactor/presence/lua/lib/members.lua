-- What is stored of one member: the presence key (alive while it exists) and the shadow key, which outlives it and
-- holds what a departure needs: username `u`, joinedAt `j`, lastActiveAt `a`, reason `r`, node `n`, tokens in the index
-- of people `p`, and a field for each connection. Commands on presence keys of many members go through `pcall`: a key
-- that was edited externally and is no longer a hash affects only its own member.

-- A member as diffs and lists carry it, in the order of MEMBER_FIELDS, or nil when its presence key is gone.
-- MEMBER_FIELDS is a constant that the loader sets from `reactor.presence.rows`.
local function read_member(room, user)
  local row = redis.pcall('HMGET', presence_key(room, user), unpack(MEMBER_FIELDS))
  if not row[1] then return nil end
  local joined_at, last_active = tonumber(row[4]) or 0, tonumber(row[5]) or 0
  return { row[1], row[2] or row[1], row[3] or '', joined_at, last_active, row[6] and 1 or 0, tonumber(row[7]) or 1 }
end

local function read_last_active(room, user)
  local found = redis.pcall('HGET', presence_key(room, user), 'lastActiveAt')
  return type(found) == 'string' and found or nil
end

-- The shadow's fields, its connections ({connection: '1' when away, else '0'}), and how many those are.
local function read_shadow(room, user)
  local flat = call('HGETALL', shadow_key(room, user))
  local fields, connections, count = {}, {}, 0
  for i = 1, #flat, 2 do
    if string.find(flat[i], '.', 1, true) then
      connections[flat[i]] = flat[i + 1]
      count = count + 1
    else
      fields[flat[i]] = flat[i + 1]
    end
  end
  return fields, connections, count
end
