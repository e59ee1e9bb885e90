-- Which of some commands this user may not run. Nothing is run.
-- KEYS: shard or fleet prefix
-- ARGV: commands (MessagePack: lists of words, where '<key>' stands for a key or channel of the prefix)
-- Returns: {the place of each command that is refused, counted from 1, ...}
-- Publishes: nothing
local refused = {}
if not redis.acl_check_cmd then return refused end -- a server that only speaks as Redis does
for place, words in ipairs(cmsgpack.unpack(ARGV[1])) do
  for at, word in ipairs(words) do
    if word == '<key>' then words[at] = SHARD .. ':pulse' end
  end
  local known, permitted = pcall(redis.acl_check_cmd, unpack(words))
  if not known or not permitted then refused[#refused + 1] = place end
end
return refused
