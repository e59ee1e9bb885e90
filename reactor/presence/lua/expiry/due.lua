-- Examines the rooms whose stored deadline has passed. Members that are alive get their true deadline and the room a
-- new one, so that each call moves something forward. Reading the keys of expired members makes Redis delete them and
-- publish the events that end in claims; until then their room is due again after `retry`, when its next member is
-- due, or when expiry is no longer suspended. The room at which the limit was reached may have more of them, so it is
-- due again after a fifth of `retry`.
-- ARGV: limit (rows at most), retry (ms)
-- Returns: {now, next deadline of the shard or -1, rows moved, {suffix of a member found gone, ...}}
-- Publishes: nothing by itself (Redis publishes `expired`)
local limit, retry = tonumber(ARGV[1]), tonumber(ARGV[2])
local moved, gone = 0, {}
local suspended_until
local head = call('ZRANGE', ROOMS, 0, 0, 'WITHSCORES')
while limit > 0 and head[1] and tonumber(head[2]) < now() do
  local room = head[1]
  local expired, examined = scan_deadlines(room, limit)
  limit = limit - math.max(examined, 1)
  moved = moved + examined - #expired
  for _, user in ipairs(expired) do gone[#gone + 1] = room .. ':user:' .. user end
  if #expired > 0 then
    if suspended_until == nil then suspended_until = expiry_suspended_until() or false end
    local again_at = suspended_until or now() + (limit > 0 and retry or math.floor(retry / 5))
    local behind = call('ZRANGE', members_key(room), now(), '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    call('ZADD', ROOMS, math.min(again_at, tonumber(behind[2] or again_at)), room)
  else
    local first = call('ZRANGE', members_key(room), 0, 0, 'WITHSCORES')
    if first[1] then call('ZADD', ROOMS, first[2], room) else call('ZREM', ROOMS, room) end
  end
  head = call('ZRANGE', ROOMS, 0, 0, 'WITHSCORES')
end
return { now(), tonumber(head[2] or -1), moved, gone }
