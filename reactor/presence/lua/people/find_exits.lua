-- Finds the shards with departures that the index of people has yet to take in, where one server has them all.
-- ARGV: for each member: home (of a shard: what its keys start with)
-- Returns: the place of each that has some, counted from 1
-- Publishes: nothing
local keys, found = {}, {}
for i = 1, #ARGV, 1 do keys[i] = exits_key(ARGV[i]) end
if #keys > 0 and redis.call('EXISTS', unpack(keys)) > 0 then
  for i, key in ipairs(keys) do
    if redis.call('EXISTS', key) == 1 then found[#found + 1] = i end
  end
end
return found
