-- Removes a ban from a shard, or from the fleet's list.
-- KEYS: shard or fleet prefix
-- ARGV: id (room:ROOM:user:USER or user:USER, escaped); notice (JSON: userId, roomId; '' for none)
-- Returns: 1 when there was one, else 0
-- Publishes: the notice, behind a tilde: a ban without an end
local id, notice = unpack(ARGV)
local known = redis.call('DEL', ban_key(id)) + call('ZREM', BANS, id)
if notice ~= '' then redis.call(PUBLISH, CHANNELS .. ':wake', BAN_MARK .. notice) end
return known > 0 and 1 or 0
