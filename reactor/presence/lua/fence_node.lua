-- A node was judged lost: from here on its heartbeats are refused, and its rooms wait to be gone through.
-- ARGV: node; count (rooms a call)
-- Returns: some of the rooms that `lose_node` has still to go through; none when the node is done with
-- Publishes: nothing
local node, count = ARGV[1], tonumber(ARGV[2])
fence(node)
local lost = lost_key(node)
if redis.call('EXISTS', node_key(node)) == 1 then
  redis.call('SUNIONSTORE', lost, lost, node_key(node))
  redis.call('DEL', node_key(node))
end
local rooms = redis.call('SRANDMEMBER', lost, count)
if #rooms == 0 then redis.call('SREM', NODES, node) end
return rooms
