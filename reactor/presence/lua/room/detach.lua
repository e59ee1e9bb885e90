-- Connections of one shard were lost. With a member's last connection its life is shortened to the grace, and the
-- shadow notes the reason of the departure to come; nothing is published yet. The stored deadline is lowered at once. A
-- member whose keys were damaged externally fails by itself.
-- ARGV: for each member: room, user; connection; grace, away_grace (ms; 0 removes the member at once); join_unanswered
--       ('1' where a join of it got no reply: a stalled network may deliver that join later, for a connection that is
--       gone)
-- Returns: {for each member: {'absent'} | {'kept', now} | {'grace', now, deadline} | {'departed', now} | an error}
-- Publishes: a diff (updated) while other connections remain; a diff (left) where the grace is 0
demand_right_to_change()
local function detach(room, user, connection, grace, away_grace, join_unanswered)
  if join_unanswered == '1' then fence(join_fence(connection, room, user)) end
  local last_active = read_last_active(room, user)
  if not last_active and settle_member(room, user) == 'gone' then return { 'absent' } end
  local _, connections, count = read_shadow(room, user)
  local flag = connections[connection]
  if not flag and count > 0 then return { 'kept', now() } end
  remove_connection(room, user, connection, connections)
  if next(connections) then
    if update_visible_fields(room, user, connections) then
      publish_diff(room, 1, {}, { read_member(room, user) }, {})
    end
    return { 'kept', now() }
  end
  local deadline = start_grace(room, user, node_of(connection), tonumber(flag == '1' and away_grace or grace),
    last_active)
  if not deadline then return { 'departed', now() } end
  return { 'grace', now(), deadline }
end

local replies = {}
for i = 1, #ARGV, 6 do
  replies[#replies + 1] = attempt(detach, unpack(ARGV, i, i + 5))
end
return replies
