-- Own keys of a wrong type, with text in place of a count, or with a count or a stream's last id to which nothing can be
-- added. Another program, or an operator, may have overwritten an index; every later call would fail there, and leave
-- behind what it had written before. So indexes and shadows are read and written by `call`: it renames such a key aside
-- for a week, notifies the nodes, which register again what they hold, and continues without it. Presence keys are not:
-- one that is no hash is an external change of its member.

local DAMAGED_TTL = 604800000 -- ms

-- What redis.call returns, for a command whose first argument is an own key.
local function call(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  local shard, name = string.match(key, '^({[^}]*}):(.*)$')
  local aside = shard .. ':damaged:' .. name
  local damaged = string.find(reply.err, '^WRONGTYPE')
  for _, words in ipairs({ 'not an integer', 'would overflow', 'exhausted the last possible ID' }) do
    damaged = damaged or string.find(reply.err, words, 1, true)
  end
  if not damaged or redis.pcall('RENAME', key, aside).err then error(reply) end
  redis.pcall('PEXPIRE', aside, DAMAGED_TTL)
  redis.pcall(PUBLISH, shard .. DATABASE .. ':wake', DAMAGED_MARK .. name)
  return redis.call(command, key, ...)
end
