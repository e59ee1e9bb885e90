-- Publishes a message to a room. It is stored nowhere: a client that is not there now never receives it.
-- ARGV: room; data (JSON)
-- Returns: {now, nodes that received it}
-- Publishes: the message, on the channel of the room's diffs
local room, data = unpack(ARGV)
return { now(), redis.call(PUBLISH, SHARD .. ':diff:' .. room, '!' .. string.format('%.0f', now()) .. ' ' .. data) }
