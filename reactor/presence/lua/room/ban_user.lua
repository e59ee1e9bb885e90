-- Applies the ban of a user everywhere to one shard: first the key, so that no join that comes later succeeds; then
-- the user is removed from the shard's rooms, a page of them in a call. A room that the user is in at the first call
-- is on one of the pages (https://redis.io/docs/latest/commands/scan/#scan-guarantees).
-- ARGV: user; record (JSON); ends_at (ms); message ('' for the usual one); cursor ('0' first); size (rooms a page);
--       anew ('1' where it is applied also after it was lifted here)
-- Returns: {next cursor, how many memberships ended}; {'0', 0} where the ban has ended meanwhile, as on the way through
--          a failover
-- Publishes: a diff (left) for each room that the user was in
demand_right_to_change()
local user, record, ends_at, message, cursor, size, anew = unpack(ARGV)
if tonumber(ends_at) <= now() then return { '0', 0 } end
if anew == '1' then
  if cursor == '0' then redis.call('DEL', lifted_key(user_ban_id(user))) end
elseif was_lifted(user, record) then
  return { '0', 0 }
end
if cursor == '0' then redis.call('SET', ban_key(user_ban_id(user)), record, 'PXAT', ends_at) end
local page, ended = call('ZSCAN', ROOMS, cursor, 'COUNT', size), 0
for i = 1, #page[2], 2 do
  local room = page[2][i]
  if call('ZSCORE', members_key(room), user) and settle_member(room, user) ~= 'gone' then
    remove_members(room, { user }, 'banned', { message = message, ends_at = tonumber(ends_at) })
    ended = ended + 1
  end
end
return { page[1], ended }
