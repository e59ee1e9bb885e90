-- The shard's changes since an endpoint last confirmed. The log exists only while it is read: the first call creates
-- it, and without further ones it expires.
-- ARGV: endpoint; limit (entries); keep (ms: how long the log and the places outlive the last call)
-- Returns: {first (place of the first entry below, counted from the log's beginning), missed (entries that the cap
--          removed unread, and those of rooms that filled the log), then for each entry: id, room (escaped), diff}
-- Publishes: nothing
local endpoint, limit, keep = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local places = SHARD .. ':places'

call('XRANGE', CHANGES, '-', '+', 'COUNT', 1) -- XINFO does not have the key where `call` expects it
if redis.call('EXISTS', CHANGES) == 0 then
  redis.call('DEL', places)
  call('XADD', CHANGES, '*', 'begun', now())
end
local log, flat = {}, redis.call('XINFO', 'STREAM', CHANGES)
for i = 1, #flat, 2 do log[flat[i]] = flat[i + 1] end
local added, length = log['entries-added'], log['length']
local stored = call('HGET', places, endpoint)
local id, place = string.match(stored or '', '^(%d+%-%d+) (%d+)$')
local dropped = tonumber(call('HGET', places, ' dropped') or nil) or 0
local reported = tonumber(call('HGET', places, endpoint .. ' dropped') or nil) or 0
local is_new = not stored
-- Another program may have written a place that is none, or one that the log has not reached: how far the endpoint has
-- read is not known then, so it gets what the log still has, with the ids of before.
local function time_of(entry) return tonumber(string.match(entry, '^%d+')) end
local is_unreadable = stored and (not id or time_of(id) > time_of(log['last-generated-id']))
if is_unreadable then
  id, place = '0-0', added - length
elseif is_new then
  id, place, reported = log['last-generated-id'], added, dropped
end
-- Changes that were removed from the middle of the log count as missed once, and in the places from then on.
local lost = dropped - reported
if lost < 0 or lost > added then lost = 0 end -- another program has written them
place = tonumber(place) + lost
if dropped ~= reported or is_new or is_unreadable then
  call('HSET', places, endpoint, id .. ' ' .. place, endpoint .. ' dropped', dropped)
end
redis.call('PEXPIRE', CHANGES, keep)
redis.call('PEXPIRE', places, keep)

local first = math.max(place, added - length)
local reply = { first, first - place + lost }
append_changes(reply, call('XRANGE', CHANGES, '(' .. id, '+', 'COUNT', limit))
return reply
