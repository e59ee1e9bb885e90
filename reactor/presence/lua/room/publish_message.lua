-- Publishes a message to a room. It is stored nowhere: a client that is not there now never receives it.
-- ARGV: room; kind (its first byte), body; user ('' or the sender, who has to be a member)
-- Returns: {'absent'} | {'published', now, nodes that received it}
-- Publishes: the message, on the channel of the room's diffs
local room, kind, body, user = unpack(ARGV)
if user ~= '' and redis.call('EXISTS', presence_key(room, user)) == 0 then return { 'absent' } end
local message = kind .. string.format('%.0f', now()) .. ' ' .. body
return { 'published', now(), redis.call(PUBLISH, CHANNELS .. ':diff:' .. room, message) }
