-- Renews a node's lease and advances its counter in the registry. Peers judge a node by its counter and their own
-- monotonic clocks, so that neither a stalled Redis nor a clock that steps makes a node look lost.
-- KEYS: fleet prefix
-- ARGV: node; counter; lease (ms); about (see `NodeRecord`); first ('1' when the node takes its name, else '0')
-- Returns: {'lost'} (the node was judged lost, or Redis lost its data: it has to take a new name) |
--          {'ok', now, {node, 'COUNTER ABOUT', ...}}
-- Publishes: nothing
local node, counter, lease, about, first = unpack(ARGV)
local registry = SHARD .. ':registry'
if first ~= '1' and redis.call('HEXISTS', registry, node) == 0 then return { 'lost' } end
redis.call('SET', SHARD .. ':lease:' .. node, counter, 'PX', lease)
redis.call('HSET', registry, node, counter .. ' ' .. about)
return { 'ok', now(), redis.call('HGETALL', registry) }
