-- A node lives, and this shard takes its writes. After a time without any pulse, or on another server than before, ends
-- by time do not count until all could speak up again for one lease; a shard with nobody in it has nobody to wait for.
-- ARGV: lease (ms)
-- Returns: the time until which ends by time do not count, or 0
-- Publishes: nothing
local key, lease, run = SHARD .. ':pulse', tonumber(ARGV[1]), run_id()
local before = redis.call('HMGET', key, 'at', 'hold', 'run')
local hold = tonumber(before[2] or 0)
local silent = not before[1] or NOW - before[1] > lease or before[3] ~= run
if silent and redis.call('EXISTS', ROOMS) == 1 then hold = NOW + lease end
redis.call('HSET', key, 'at', NOW, 'lease', lease, 'hold', hold, 'run', run)
redis.call('PEXPIRE', key, 86400000)
return hold > NOW and hold or 0
