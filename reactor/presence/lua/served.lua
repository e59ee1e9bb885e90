-- An endpoint was told of all changes up to here. A sender that was slow, or that is none any more, takes nothing back.
-- ARGV: endpoint; id (of the last entry it was told); place (how many entries that makes from the log's beginning)
-- Returns: 1 when that is news, else 0
-- Publishes: nothing
local endpoint, id, place = ARGV[1], ARGV[2], ARGV[3]
local places = SHARD .. ':places'
local known = string.match(redis.call('HGET', places, endpoint) or '', ' (%d+)$')
if not known or tonumber(known) >= tonumber(place) then return 0 end
redis.call('HSET', places, endpoint, id .. ' ' .. place)
return 1
