-- Forgets when a user was last seen, also by departures from before that the index has yet to take in. Of a user who is
-- online the record stays, which ends with the last departure.
-- ARGV: user; keep (ms for which departures from before are recognised)
-- Returns: 1 when something was on record, else 0
-- Publishes: a change of the person, where something was
demand_right_to_change()
local user, person = ARGV[1], person_key(SHARD, ARGV[1])
redis.call('SET', erased_key(SHARD, user), now(), 'PX', ARGV[2])
local erased = call('ZREM', seen_key(SHARD), user)
if erased == 1 then publish_person(SHARD, user, 'offline', 0, '') end
return math.max(erased, call('HDEL', person, ':l'))
