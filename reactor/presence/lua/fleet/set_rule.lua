-- Sets or removes the rule of one room, and notifies all nodes.
-- KEYS: fleet prefix
-- ARGV: room; rule (JSON, '' to remove it); most (rooms that may have one)
-- Returns: 'set' | 'full' | 'gone' | 'absent' (there was none to remove)
-- Publishes: the room
local room, rule, most = unpack(ARGV)
local rules = SHARD .. ':rules'
local known = call('HEXISTS', rules, room) == 1
if rule == '' and not known then return 'absent' end
if rule ~= '' and not known and call('HLEN', rules) >= tonumber(most) then return 'full' end
if rule == '' then call('HDEL', rules, room) else call('HSET', rules, room, rule) end
redis.call(PUBLISH, CHANNELS .. ':rules', room)
return rule == '' and 'gone' or 'set'
