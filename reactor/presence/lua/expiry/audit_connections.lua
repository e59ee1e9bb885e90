-- Compares connections that a node has with what the shard stores about them, and completes its indexes: they may have
-- been evicted, deleted or damaged.
-- ARGV: node; then for each member: room, user, connection
-- Returns: {the place of each connection that has to be registered again, counted from 1, ...}
-- Publishes: a diff (updated) of a member that had no row, since a list made meanwhile lacks it; wake-ups
demand_right_to_change()
local node, unknown = ARGV[1], {}
for i = 2, #ARGV, 3 do
  local room, user, connection = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local presence, shadow = presence_key(room, user), shadow_key(room, user)
  local deadline, known = redis.call('PEXPIRETIME', presence), call('HMGET', shadow, connection, 'j')
  if deadline < 0 or not known[1] or redis.pcall('HEXISTS', presence, 'userId') ~= 1 then
    unknown[#unknown + 1] = (i + 1) / 3
  else
    local fields = not known[2] and redis.pcall('HMGET', presence, 'username', 'joinedAt') or {}
    if fields[1] and fields[2] then call('HSET', shadow, 'u', fields[1], 'j', fields[2]) end
    call('ZADD', node_room_key(node, room), 0, user)
    call('SADD', node_key(node), room)
    call('SADD', NODES, node)
    if call('ZADD', members_key(room), 'NX', deadline, user) == 1 then
      note_activity(room, user, read_last_active(room, user) or digits(now()))
      publish_diff(room, 1, {}, { read_member(room, user) }, {})
    end
    if not call('ZSCORE', ROOMS, room) then lower_room_deadline(room, deadline) end
  end
end
return unknown
