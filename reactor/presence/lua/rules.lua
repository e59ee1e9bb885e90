-- What was set to differ in rooms.
-- KEYS: fleet prefix
-- ARGV: room ('' for all of them)
-- Returns: {room, rule (JSON), ...}
-- Publishes: nothing
local rules, room = SHARD .. ':rules', ARGV[1]
if room == '' then return redis.call('HGETALL', rules) end
local rule = redis.call('HGET', rules, room)
return rule and { room, rule } or {}
