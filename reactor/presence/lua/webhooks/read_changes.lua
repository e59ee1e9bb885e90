-- The shard's changes since an endpoint last confirmed. The log exists only while it is read: the first call creates
-- it, and without further ones it expires.
-- ARGV: endpoint; limit (entries); keep (ms: how long the log and the places outlive the last call)
-- Returns: {first (place of the first entry below, counted from the log's beginning), missed (entries that the cap
--          removed unread), then for each entry: id, room (escaped), diff}
-- Publishes: nothing
local endpoint, limit, keep = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local places = SHARD .. ':places'

if redis.call('EXISTS', CHANGES) == 0 then
  redis.call('DEL', places)
  redis.call('XADD', CHANGES, '*', 'begun', now())
end
local log, flat = {}, redis.call('XINFO', 'STREAM', CHANGES)
for i = 1, #flat, 2 do log[flat[i]] = flat[i + 1] end
local added, length = log['entries-added'], log['length']
local id, place = string.match(redis.call('HGET', places, endpoint) or '', '^(%S+) (%d+)$')
if not id then
  id, place = log['last-generated-id'], added
  redis.call('HSET', places, endpoint, id .. ' ' .. place)
end
redis.call('PEXPIRE', CHANGES, keep)
redis.call('PEXPIRE', places, keep)

local first = math.max(tonumber(place), added - length)
local reply = { first, first - place }
for _, entry in ipairs(redis.call('XRANGE', CHANGES, '(' .. id, '+', 'COUNT', limit)) do
  reply[#reply + 1] = entry[1]
  reply[#reply + 1] = entry[2][2]
  reply[#reply + 1] = entry[2][4]
end
return reply
