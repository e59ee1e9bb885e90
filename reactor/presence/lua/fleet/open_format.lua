-- The format of the namespace, which is created where there is none. Where Redis lost it while nodes run, it becomes
-- again what these say.
-- KEYS: fleet prefix
-- ARGV: number, shards (of a new namespace)
-- Returns: {number, shards}
-- Publishes: nothing
local number, shards = read_format()
if number then return { number, shards } end
number, shards = tonumber(ARGV[1]), tonumber(ARGV[2])
local registry = call('HGETALL', SHARD .. ':registry')
for i = 2, #registry, 2 do
  local newest, its_shards = node_format(registry[i])
  if newest then number, shards = math.min(number, newest), its_shards end
end
call('HSET', FORMAT, 'number', number, 'shards', shards)
return { number, shards }
