-- Connections go to the background or come back. A member is away while all its connections are. A member whose keys
-- were edited externally fails alone: its connection counts as absent.
-- ARGV: for each member: room, user; connection; away ('1' or '0')
-- Returns: {now, then for each connection: diff or '', nil where it is not in the room}
-- Publishes: a diff (updated) for each member whose visible fields changed
local function set_away(room, user, connection, away)
  if settle_member(room, user) ~= 'alive' then return false end
  local _, connections = read_shadow(room, user)
  if not connections[connection] then return false end
  call('HSET', shadow_key(room, user), connection, away)
  connections[connection] = away
  if not update_visible_fields(room, user, connections) then return '' end
  local _, _, _, diff = publish_diff(room, 1, {}, { read_member(room, user) }, {})
  return diff
end

demand_right_to_change()
local reply = { now() }
for i = 1, #ARGV, 4 do
  local found, diff = pcall(set_away, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  reply[#reply + 1] = found and diff
end
return reply
