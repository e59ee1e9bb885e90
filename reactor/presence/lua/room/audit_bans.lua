-- Makes the bans of a shard complete: what is listed has its key, also after an eviction, and its user is not in the
-- room. Copies of bans everywhere that are missing are set. Bans that ended leave the list. What an evicted key held is
-- lost but for its end.
-- ARGV: score (ms), after, size (see list_bans); then for each member: user, record, ends_at (ms)
-- Returns: {score and id of the last ban of a full page, or '' and '', then the places of the users whose key was gone}
-- Publishes: a diff (left) for a user who was a member
demand_right_to_change()
local score, after, size = math.max(tonumber(ARGV[1]), now()), ARGV[2], tonumber(ARGV[3])
for _, id in ipairs(call('ZRANGE', BANS, '-inf', now(), 'BYSCORE', 'LIMIT', 0, size)) do call('ZREM', BANS, id) end
local listed = size > 0 and list_bans(score, after, size) or {}
for i = 1, #listed, 2 do
  local id, ends_at = listed[i], listed[i + 1]
  local room, user = string.match(id, '^room:(.*):user:(.*)$')
  if room then
    local record = cjson.encode({ userId = unescape(user), roomId = unescape(room), ['until'] = ends_at })
    redis.call('SET', ban_key(id), record, 'PXAT', ends_at, 'NX')
    if call('ZSCORE', members_key(room), user) then
      remove_members(room, { user }, 'banned', { ends_at = ends_at })
    end
  end
end
local reply = { '', '' }
if #listed > 0 and #listed == 2 * size then reply = { tostring(listed[#listed]), listed[#listed - 1] } end
for i = 4, #ARGV, 3 do
  local is_lifted = was_lifted(ARGV[i], ARGV[i + 1])
  if not is_lifted and redis.call('SET', ban_key(user_ban_id(ARGV[i])), ARGV[i + 1], 'PXAT', ARGV[i + 2], 'NX') then
    reply[#reply + 1] = (i - 4) / 3
  end
end
return reply
