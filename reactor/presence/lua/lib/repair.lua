-- Own keys of a wrong type, or with text, or too large a number, in place of a count. Another program, or an operator,
-- may have overwritten an index; every later call would fail there, and leave behind what it had written before. So
-- indexes and shadows are read and written by `call`: it renames such a key aside for a week, notifies the nodes, which
-- register again what they hold, and continues without it. Presence keys are not: one that is no hash is an external
-- change of its member.

local DAMAGED_TTL = 604800000 -- ms

-- What redis.call returns, for a command whose first argument is an own key.
local function call(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  local shard, name = string.match(key, '^({[^}]*}):(.*)$')
  local aside = shard .. ':damaged:' .. name
  local damaged = string.find(reply.err, '^WRONGTYPE') or string.find(reply.err, 'not an integer', 1, true)
    or string.find(reply.err, 'overflow', 1, true)
  if not damaged or redis.pcall('RENAME', key, aside).err then error(reply) end
  redis.pcall('PEXPIRE', aside, DAMAGED_TTL)
  redis.pcall(PUBLISH, shard .. DATABASE .. ':wake', DAMAGED_MARK .. name)
  return redis.call(command, key, ...)
end
