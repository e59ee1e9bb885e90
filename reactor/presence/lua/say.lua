-- Something is said to everyone in a room. It is part of no position: who is not there now never hears it.
-- ARGV: room; data (JSON)
-- Returns: {now, nodes that heard it}
-- Publishes: the message, on the channel of the room's diffs
local room, data = unpack(ARGV)
return { NOW, redis.call(PUBLISH, SHARD .. ':diff:' .. room, '!' .. string.format('%.0f', NOW) .. ' ' .. data) }
