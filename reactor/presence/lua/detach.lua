-- A connection is gone without a word. With the member's last one its life is cut to the grace, and the shadow
-- notes why it will have ended; nobody is told yet. The noted deadline is lowered at once.
-- ARGV: room, user; connection; grace, away_grace (ms; 0 ends the member here and now); doubtful ('1' where Redis gave
--       no answer to a join of it: a network that stalled may deliver that one later, to nobody)
-- Returns: {'absent'} | {'kept', now} | {'grace', now, deadline} | {'departed', now}
-- Publishes: a diff (updated) while other connections remain; a diff (left) where the grace is 0
local room, user, connection = ARGV[1], ARGV[2], ARGV[3]
if ARGV[6] == '1' then fence(connection) end
if settle_member(room, user) == 'gone' then return { 'absent' } end
local _, connections, count = read_shadow(room, user)
local flag = connections[connection]
if not flag and count > 0 then return { 'kept', NOW } end
forget_connection(room, user, connection, connections)
if next(connections) then
  if reflect(room, user, connections) then tell(room, 1, {}, { read_member(room, user) }, {}) end
  return { 'kept', NOW }
end
local deadline = start_grace(room, user, node_of(connection), tonumber(flag == '1' and ARGV[5] or ARGV[4]))
if not deadline then return { 'departed', NOW } end
return { 'grace', NOW, deadline }
