-- Fences a node that was judged lost: from here on its calls are refused. Its rooms wait for `detach_node`.
-- ARGV: node; count (rooms a call)
-- Returns: some of the rooms that `detach_node` has still to process; none when the node is finished
-- Publishes: nothing
local node, count = ARGV[1], tonumber(ARGV[2])
fence(node)
local lost = lost_node_key(node)
if call('SRANDMEMBER', node_key(node)) then
  call('SUNIONSTORE', lost, lost, node_key(node))
  redis.call('DEL', node_key(node))
end
local rooms = call('SRANDMEMBER', lost, count)
if #rooms == 0 then call('SREM', NODES, node) end
return rooms
