-- The audit of members against their presence keys.

-- Adds to `gone` the suffix of each member whose presence key is gone. `users` holds a user at every `stride`th place.
-- One EXISTS counts all keys; each is checked by itself only when some are missing.
local function collect_gone(room, users, stride, gone)
  local keys = {}
  for i = 1, #users, stride do keys[#keys + 1] = presence_key(room, users[i]) end
  if #keys == 0 or redis.call('EXISTS', unpack(keys)) == #keys then return end
  for i = 1, #users, stride do
    if redis.call('EXISTS', presence_key(room, users[i])) == 0 then gone[#gone + 1] = room .. ':user:' .. users[i] end
  end
end
