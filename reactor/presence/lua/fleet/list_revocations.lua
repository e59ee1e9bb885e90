-- A page of the revocations, the latest in front; the first page also removes those that are over.
-- KEYS: fleet prefix
-- ARGV: kept (ms that a revocation holds); skip (how many to pass over); size
-- Returns: {user, time (ms), ...}
-- Publishes: nothing
local kept, skip, size = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local revoked = SHARD .. ':revoked'
if skip == 0 then
  for _, user in ipairs(call('ZRANGE', revoked, '-inf', now() - kept, 'BYSCORE', 'LIMIT', 0, size)) do
    call('ZREM', revoked, user)
  end
end
-- Counted from the end: what is added or moved there meanwhile can repeat an entry, and never hides one.
return call('ZRANGE', revoked, -skip - size, -skip - 1, 'WITHSCORES')
