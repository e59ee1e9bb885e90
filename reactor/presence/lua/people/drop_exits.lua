-- Removes departures that the index of people has taken in. A later departure of the same user and room stays.
-- ARGV: for each member: suffix (ROOM:user:USER), exit (last activity and tokens)
-- Returns: how many were removed
-- Publishes: nothing
local suffixes, done = {}, {}
for i = 1, #ARGV, 2 do suffixes[#suffixes + 1] = ARGV[i] end
if #suffixes == 0 then return 0 end
for place, exit in ipairs(call('HMGET', exits_key(SHARD), unpack(suffixes))) do
  if exit == ARGV[2 * place] then done[#done + 1] = suffixes[place] end
end
return #done > 0 and call('HDEL', exits_key(SHARD), unpack(done)) or 0
