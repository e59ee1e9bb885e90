-- Forgets users who were last seen too long ago.
-- ARGV: kept (ms for which it is kept; 0 to forget all); count (users at most)
-- Returns: how many were forgotten
-- Publishes: nothing
local kept = tonumber(ARGV[1])
local old = call('ZRANGE', seen_key(SHARD), '-inf', now() - kept, 'BYSCORE', 'LIMIT', 0, ARGV[2])
if #old > 0 then call('ZREM', seen_key(SHARD), unpack(old)) end
if kept > 0 then redis.call('PEXPIRE', seen_key(SHARD), kept) end -- in case no server runs any more
return #old
