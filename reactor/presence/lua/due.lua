-- The pacemaker's look: rooms whose noted deadline has passed. The living among their members get their true deadline
-- and the room a new one, so that each look moves something forward. The touch makes Redis expire the others and
-- publish the events which end them; until they are claimed the room comes up again after `retry`, when the next of
-- its members is due, or when ends by time count again.
-- ARGV: limit (rows at most), retry (ms)
-- Returns: {now, next deadline of the shard or -1, rows moved, {suffix of a member found gone, ...}}
-- Publishes: nothing by itself (Redis publishes `expired`)
local limit, retry = tonumber(ARGV[1]), tonumber(ARGV[2])
local moved, gone = 0, {}
local again_at = held_until() or NOW + retry
while limit > 0 do
  local room = redis.call('ZRANGE', ROOMS, '-inf', '(' .. NOW, 'BYSCORE', 'LIMIT', 0, 1)[1]
  if not room then break end
  local lost, looked = look(room, limit)
  limit = limit - math.max(looked, 1)
  moved = moved + looked - #lost
  for _, user in ipairs(lost) do gone[#gone + 1] = room .. ':user:' .. user end
  if #lost > 0 then
    local behind = redis.call('ZRANGE', members_key(room), NOW, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    redis.call('ZADD', ROOMS, math.min(again_at, tonumber(behind[2] or again_at)), room)
  else
    local head = redis.call('ZRANGE', members_key(room), 0, 0, 'WITHSCORES')
    if head[1] then redis.call('ZADD', ROOMS, head[2], room) else redis.call('ZREM', ROOMS, room) end
  end
end
local head = redis.call('ZRANGE', ROOMS, 0, 0, 'WITHSCORES')
return { NOW, tonumber(head[2] or -1), moved, gone }
