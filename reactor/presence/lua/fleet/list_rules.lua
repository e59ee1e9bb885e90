-- The rules of rooms that are stored in Redis.
-- KEYS: fleet prefix
-- ARGV: room ('' for all rooms)
-- Returns: {room, rule (JSON), ...}
-- Publishes: nothing
local rules, room = SHARD .. ':rules', ARGV[1]
if room == '' then return call('HGETALL', rules) end
local rule = call('HGET', rules, room)
return rule and { room, rule } or {}
