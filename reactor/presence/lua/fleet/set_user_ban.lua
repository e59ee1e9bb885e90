-- Lists the ban of a user everywhere. The caller then applies it to every shard.
-- KEYS: fleet prefix
-- ARGV: user; ttl (ms); message ('' for the usual one); by ('' or who decided it); most (bans that may be listed);
--       made ('' or ms: repeats a ban of then, which Redis may have forgotten; what came later stays); age (ms since
--       the caller heard of that)
-- Returns: {'full', count} | {'outdated'} | {'banned', record (JSON), ends_at (ms)}
-- Publishes: the record, behind a tilde
local user, ttl, message, by, most, made, age = unpack(ARGV)
local id, listed = user_ban_id(user), call('ZCARD', BANS)
made = tonumber(made)
if made and is_outdated(id, made, ttl, age) then return { 'outdated' } end
if listed >= tonumber(most) and not call('ZSCORE', BANS, id) then return { 'full', listed } end
local record, ends_at = set_ban(id, nil, unescape(user), ttl, message, by, made)
return { 'banned', record, ends_at }
