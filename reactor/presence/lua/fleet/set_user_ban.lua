-- Lists the ban of a user everywhere. The caller then applies it to every shard.
-- KEYS: fleet prefix
-- ARGV: user; ttl (ms); message ('' for the usual one); by ('' or who decided it); most (bans that may be listed)
-- Returns: {'full', count} | {'banned', record (JSON), ends_at (ms)}
-- Publishes: the record, behind a tilde
local user, ttl, message, by, most = unpack(ARGV)
local id, listed = user_ban_id(user), call('ZCARD', BANS)
if listed >= tonumber(most) and not call('ZSCORE', BANS, id) then return { 'full', listed } end
local record, ends_at = set_ban(id, nil, unescape(user), ttl, message, by)
return { 'banned', record, ends_at }
