-- A connection was lost. With a member's last connection its life is shortened to the grace, and the shadow notes the
-- reason of the departure to come; nothing is published yet. The stored deadline is lowered at once.
-- ARGV: room, user; connection; grace, away_grace (ms; 0 removes the member at once); join_unanswered ('1' where a
--       join of it got no reply: a stalled network may deliver that join later, for a connection that is gone)
-- Returns: {'absent'} | {'kept', now} | {'grace', now, deadline} | {'departed', now}
-- Publishes: a diff (updated) while other connections remain; a diff (left) where the grace is 0
local room, user, connection = ARGV[1], ARGV[2], ARGV[3]
if ARGV[6] == '1' then fence(connection) end
if settle_member(room, user) == 'gone' then return { 'absent' } end
local _, connections, count = read_shadow(room, user)
local flag = connections[connection]
if not flag and count > 0 then return { 'kept', now() } end
remove_connection(room, user, connection, connections)
if next(connections) then
  if update_visible_fields(room, user, connections) then publish_diff(room, 1, {}, { read_member(room, user) }, {}) end
  return { 'kept', now() }
end
local deadline = start_grace(room, user, node_of(connection), tonumber(flag == '1' and ARGV[5] or ARGV[4]))
if not deadline then return { 'departed', now() } end
return { 'grace', now(), deadline }
