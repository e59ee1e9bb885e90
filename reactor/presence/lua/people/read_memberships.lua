-- Whether users are in rooms, as the presence keys say.
-- ARGV: detail ('tokens' of the joins, or the ids of the 'connections'); then for each member: room, user
-- Returns: for each: nothing (absent) | d (departed, which the index has yet to take in) and the last activity (ms) |
--          s (suspended, see lib/suspension.lua), o or a (away), each followed by a space before each token or id
-- Publishes: nothing
local reply = {}
for i = 2, #ARGV, 2 do
  local room, user = ARGV[i], ARGV[i + 1]
  local fields = redis.pcall('HMGET', presence_key(room, user), 'userId', 'away')
  local state = ''
  if fields[1] then
    state = fields[2] and 'a' or 'o'
  elseif call('ZSCORE', members_key(room), user) then
    state = 's'
  else
    local exit = call('HGET', exits_key(SHARD), room .. ':user:' .. user)
    if exit then state = 'd ' .. string.match(exit, '^%d*') end
  end
  if state == 'a' or state == 'o' or state == 's' then
    if ARGV[1] == 'tokens' then
      state = state .. ' ' .. (call('HGET', shadow_key(room, user), 'p') or '')
    else
      local shadow = call('HGETALL', shadow_key(room, user))
      for j = 1, #shadow, 2 do
        if string.find(shadow[j], '.', 1, true) then state = state .. ' ' .. shadow[j] end
      end
    end
  end
  reply[#reply + 1] = state
end
return reply
