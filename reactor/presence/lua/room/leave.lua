-- Connections leave rooms of one shard by request; with a member's last connection the member is removed at once. Where
-- Redis lost the member together with its data, the departure is recorded all the same. Leaves that come at the same
-- time share a call; each is answered by itself.
-- ARGV: for each member: room, user; connection; known_epoch (in which it was a member), username, joined_at (ms, or
--       ''); home (where the leave is to be taken into the index of people: what the keys of the user's shard start
--       with; else ''); keep (ms for which it is kept when users were last seen)
-- Returns: {for each member: {'absent'} | {'kept', now} | {'left', now} | an error}
-- Publishes: a diff (left, or updated while other connections remain); a change of the person
demand_right_to_change()
local exits, homes, kept = {}, {}, 0 -- departures to take into the index, the homes of their users, and `keep`
local replies, by_room = {}, {} -- by_room: members to remove, at once for all of a room

local erased_keys, prefixes = {}, {} -- counted at once: usually none of the keys exists
for i = 1, #ARGV, 8 do
  local user, home = ARGV[i + 1], ARGV[i + 6] or ''
  if home ~= '' then
    erased_keys[#erased_keys + 1] = erased_key(home, user)
    prefixes[home], homes[user], kept = true, home, tonumber(ARGV[i + 7])
  end
end
erasures.possible = count_existing(erased_keys, prefixes) > 0

local function remove_leaving(room)
  local leaving = by_room[room]
  by_room[room] = nil
  local failed = attempt(remove_members, room, leaving.users, 'left',
    { shadows = leaving.shadows, active = leaving.active, exits = next(homes) and exits })
  if failed.err then
    for _, place in ipairs(leaving.places) do replies[place] = failed end
  end
end

local function leave(room, user, connection, known_epoch, username, joined_at)
  if by_room[room] and by_room[room].shadows[user] then remove_leaving(room) end
  local last_active = read_last_active(room, user)
  if not last_active and settle_member(room, user) == 'gone' then
    local lost = call('HGET', state_key(room), 'epoch') ~= known_epoch or expiry_suspended_until()
    local room_id, user_id = unescape(room), unescape(user)
    if (joined_at or '') ~= '' and lost and not recorded_reason(room_id, user_id, joined_at) then
      record_departure(room_id, user_id, username, 'left', joined_at, now(), node_of(connection))
    end
    return { 'absent' }
  end
  local fields, connections, count = read_shadow(room, user)
  if not connections[connection] and count > 0 then return { 'kept', now() } end
  if count > 1 then
    remove_connection(room, user, connection, connections)
    if update_visible_fields(room, user, connections) then
      publish_diff(room, 1, {}, { read_member(room, user) }, {})
    end
    return { 'kept', now() }
  end
  by_room[room] = by_room[room] or { users = {}, shadows = {}, active = {}, places = {} }
  local leaving = by_room[room]
  table.insert(leaving.users, user)
  table.insert(leaving.places, #replies + 1)
  leaving.shadows[user], leaving.active[user] = { fields, connections }, last_active
  return { 'left', now() }
end

for i = 1, #ARGV, 8 do replies[#replies + 1] = attempt(leave, unpack(ARGV, i, i + 7)) end
while next(by_room) do remove_leaving(next(by_room)) end
take_in_exits(exits, homes, kept)
return replies
