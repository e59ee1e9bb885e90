-- Removes a ban from a shard, or from the fleet's list.
-- KEYS: shard or fleet prefix
-- ARGV: id (room:ROOM:user:USER or user:USER, escaped); listed ('1' where the ban is listed here, '0' for a copy);
--       before ('' or ms: repeats that a ban was lifted then, which Redis may have forgotten; a later ban stays)
-- Returns: 1 when there was one, else 0
-- Publishes: where it is listed here, a notice (JSON: userId, roomId, at) behind a tilde: a ban without an end
local id, listed, before = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
local made = banned_at(id)
if before and (not made or made == 0 or made >= before) then
  if listed and not made then redis.call('SET', lifted_key(id), before, 'PX', LIFTED_TTL) end
  return 0
end
redis.call('DEL', ban_key(id))
call('ZREM', BANS, id)
if listed then
  local at, room, user = before or now(), string.match(id, '^room:(.*):user:(.*)$')
  redis.call('SET', lifted_key(id), at, 'PX', LIFTED_TTL)
  local notice = { userId = unescape(user or string.sub(id, 6)), roomId = room and unescape(room) or nil, at = at }
  redis.call(PUBLISH, CHANNELS .. ':wake', BAN_MARK .. cjson.encode(notice))
end
return made and 1 or 0
