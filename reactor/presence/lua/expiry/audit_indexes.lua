-- Reads each index of the shard, so that one of a wrong type is renamed aside although nothing else reads it.
-- ARGV: none
-- Returns: 1
-- Publishes: nothing by itself
call('ZCARD', ROOMS)
call('HGET', SHARD .. ':pulse', 'at')
call('HLEN', SHARD .. ':totals')
call('HLEN', SHARD .. ':places')
call('XRANGE', SHARD .. ':departures', '-', '+', 'COUNT', 1)
call('XRANGE', CHANGES, '-', '+', 'COUNT', 1)
for _, node in ipairs(call('SMEMBERS', NODES)) do
  call('SRANDMEMBER', node_key(node))
  call('SRANDMEMBER', lost_node_key(node))
end
return 1
