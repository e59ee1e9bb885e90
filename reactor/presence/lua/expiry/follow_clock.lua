-- After the clock of Redis's host went back: moves the deadlines of a room's members back with it, page by page. Those
-- that were set since then stay: they belong to members with an activity since then, or are no further than that.
-- ARGV: room; cursor ('0' first); count (rows a page, about); step (ms by which it went back); margin (ms since then,
--       at most)
-- Returns: next cursor
-- Publishes: a wake-up
demand_right_to_change()
local room, step, margin = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[5])
local members, earliest = members_key(room), nil
local page = call('ZSCAN', members, ARGV[2], 'COUNT', ARGV[3])
for i = 1, #page[2], 2 do
  local user = page[2][i]
  local presence = presence_key(room, user)
  local deadline, active = redis.call('PEXPIRETIME', presence), tonumber(read_last_active(room, user)) or 0
  local in_grace = call('HEXISTS', shadow_key(room, user), 'r') == 1
  local former = active > now() or active < now() - margin
  if deadline > now() and (in_grace and deadline > now() + step - margin or not in_grace and former) then
    deadline = math.max(deadline - step, now() + 1)
    redis.call('PEXPIREAT', presence, deadline)
  end
  if deadline > 0 and active > 0 then note_activity(room, user, digits(active)) end
  deadline = math.max(deadline, now())
  call('ZADD', members, deadline, user)
  earliest = math.min(earliest or deadline, deadline)
end
if earliest then lower_room_deadline(room, earliest) end
return page[1]
