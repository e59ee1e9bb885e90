-- Renews a node's lease and advances its counter in the registry. Peers judge a node by its counter and their own
-- monotonic clocks, so that neither a stalled Redis nor a clock that steps makes a node look lost.
-- The format of the namespace is checked and, where Redis lost it, restored. It advances to a newer one only when each
-- registered node speaks that.
-- KEYS: fleet prefix
-- ARGV: node; counter; lease (ms); about (see `NodeRecord`); first ('1' when the node takes its name, else '0');
--       known, shards (the format that the node uses); newest (format to advance to when all nodes speak it); release
-- Returns: {'lost'} (the node was judged lost, or Redis lost its data: it has to take a new name) |
--          {'format', number, shards} (the namespace has another format than the node can use) |
--          {'ok', now, {node, 'COUNTER ABOUT', ...}, number}
-- Publishes: nothing
local node, counter, lease, about, first, known, shards, newest, release = unpack(ARGV)
known, shards, newest = tonumber(known), tonumber(shards), tonumber(newest)
local registry = SHARD .. ':registry'
local number, stored_shards = read_format()
local speaks = node_format(counter .. ' ' .. about) or 0
if number and (number > speaks or stored_shards ~= shards) then return { 'format', number, stored_shards } end
if first ~= '1' and call('HEXISTS', registry, node) == 0 then return { 'lost' } end
redis.call('SET', SHARD .. ':lease:' .. node, counter, 'PX', lease)
call('HSET', registry, node, counter .. ' ' .. about)
local nodes = call('HGETALL', registry)
local writes = math.max(number or 0, known) -- a failover may have lost the last advance, or FLUSHALL the key
if newest > writes then
  local all = newest
  for i = 2, #nodes, 2 do all = math.min(all, node_format(nodes[i]) or 0) end
  writes = math.max(writes, all)
end
if writes ~= number then call('HSET', FORMAT, 'number', writes, 'shards', shards) end
note_release(release)
return { 'ok', now(), nodes, writes }
