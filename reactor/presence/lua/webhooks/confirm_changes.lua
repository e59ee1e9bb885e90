-- Confirms that an endpoint received all changes up to an entry. A confirmation that is older than the stored one, from
-- a sender that was slow or is no longer the leader, changes nothing.
-- ARGV: endpoint; id (of the last entry received); place (how many entries that makes from the log's beginning)
-- Returns: 1 when it was newer, else 0
-- Publishes: nothing
local endpoint, id, place = ARGV[1], ARGV[2], ARGV[3]
local places = SHARD .. ':places'
local known = string.match(call('HGET', places, endpoint) or '', ' (%d+)$')
if not known or tonumber(known) >= tonumber(place) then return 0 end
call('HSET', places, endpoint, id .. ' ' .. place)
return 1
