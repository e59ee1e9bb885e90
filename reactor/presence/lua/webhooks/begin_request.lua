-- Stores what the next request to an endpoint is made of, so that another sender can repeat that very request.
-- KEYS: fleet prefix
-- ARGV: endpoint; request (JSON); keep (ms)
-- Returns: 1
-- Publishes: nothing
local requests = SHARD .. ':requests'
call('HSET', requests, ARGV[1], ARGV[2])
redis.call('PEXPIRE', requests, ARGV[3])
return 1
