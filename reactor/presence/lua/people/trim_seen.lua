-- Forgets users who were last seen too long ago, and of too many those who were longest ago.
-- ARGV: kept (ms for which it is kept; 0 to forget all); count (users at most); most (users of whom it is kept)
-- Returns: how many were forgotten
-- Publishes: nothing
local kept, seen = tonumber(ARGV[1]), seen_key(SHARD)
local old = call('ZRANGE', seen, '-inf', now() - kept, 'BYSCORE', 'LIMIT', 0, ARGV[2])
local excess = math.min(call('ZCARD', seen) - ARGV[3], tonumber(ARGV[2]))
-- Those with the lowest scores, which begin with those that are too old.
if excess > #old then old = call('ZRANGE', seen, 0, excess - 1) end
if #old > 0 then call('ZREM', seen, unpack(old)) end
if kept > 0 then redis.call('PEXPIRE', seen, kept) end -- in case no server runs any more
return #old
