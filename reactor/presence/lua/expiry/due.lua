-- Examines the rooms whose stored deadline has passed. Members that are alive get their true deadline and the room a
-- new one, so that each call moves something forward. Reading the keys of expired members makes Redis delete them and
-- publish the events that end in claims; until then their room is due again after `retry`, when its next member is
-- due, or when expiry is no longer suspended.
-- ARGV: limit (rows at most), retry (ms)
-- Returns: {now, next deadline of the shard or -1, rows moved, {suffix of a member found gone, ...}}
-- Publishes: nothing by itself (Redis publishes `expired`)
local limit, retry = tonumber(ARGV[1]), tonumber(ARGV[2])
local moved, gone = 0, {}
local again_at
while limit > 0 do
  local room = redis.call('ZRANGE', ROOMS, '-inf', '(' .. now(), 'BYSCORE', 'LIMIT', 0, 1)[1]
  if not room then break end
  local expired, examined = scan_deadlines(room, limit)
  limit = limit - math.max(examined, 1)
  moved = moved + examined - #expired
  for _, user in ipairs(expired) do gone[#gone + 1] = room .. ':user:' .. user end
  if #expired > 0 then
    again_at = again_at or expiry_suspended_until() or now() + retry
    local behind = redis.call('ZRANGE', members_key(room), now(), '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    redis.call('ZADD', ROOMS, math.min(again_at, tonumber(behind[2] or again_at)), room)
  else
    local head = redis.call('ZRANGE', members_key(room), 0, 0, 'WITHSCORES')
    if head[1] then redis.call('ZADD', ROOMS, head[2], room) else redis.call('ZREM', ROOMS, room) end
  end
end
local head = redis.call('ZRANGE', ROOMS, 0, 0, 'WITHSCORES')
return { now(), tonumber(head[2] or -1), moved, gone }
