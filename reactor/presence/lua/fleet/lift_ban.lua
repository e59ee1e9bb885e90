-- Removes a ban from a shard, or from the fleet's list.
-- KEYS: shard or fleet prefix
-- ARGV: id (room:ROOM:user:USER or user:USER, escaped); listed ('1' where the ban is listed here, '0' for a copy, '?'
--       to ask whether a later ban stays); before ('' or ms: repeats that a ban was lifted then, which Redis may have
--       forgotten; a later ban stays); age (ms since the caller heard of that)
-- Returns: 1 when there was one, else 0; to '?', 1 when a later one stays
-- Publishes: where it is listed here, a notice (JSON: userId, roomId, at) behind a tilde: a ban without an end
local id, listed, before, age = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local made, server = banned_at(id)
local stays = before and is_later_ban(made, server, before, age)
if stays or ARGV[2] == '?' then return (stays and ARGV[2] == '?') and 1 or 0 end
if before and not made then
  if listed then note_lifted(id, before, '') end
  return 0
end
redis.call('DEL', ban_key(id))
call('ZREM', BANS, id)
if listed then
  local at, room, user = before or now(), string.match(id, '^room:(.*):user:(.*)$')
  note_lifted(id, at, before and '' or SERVER)
  local notice = { userId = unescape(user or string.sub(id, 6)), roomId = room and unescape(room) or nil, at = at }
  redis.call(PUBLISH, CHANNELS .. ':wake', BAN_MARK .. cjson.encode(notice))
elseif made then
  note_lifted(id, made, '') -- of a copy: which one it was, for was_lifted
end
return made and 1 or 0
