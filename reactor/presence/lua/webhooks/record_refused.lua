-- Appends an event that an endpoint refused to the stream of refused events.
-- KEYS: fleet prefix
-- ARGV: endpoint; event (JSON); reason (text); most (entries of the stream); keep (ms: its life after the last one)
-- Returns: the entry's id
-- Publishes: nothing
local refused = SHARD .. ':refused'
local id = call('XADD', refused, 'MAXLEN', ARGV[4], '*', 'endpoint', ARGV[1], 'event', ARGV[2], 'reason', ARGV[3])
redis.call('PEXPIRE', refused, ARGV[5])
return id
