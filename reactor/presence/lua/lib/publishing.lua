-- Diffs of a room. PUBLISH and DEPARTURES_KEPT are constants that the loader sets.

-- Advances the room's version by `steps` and publishes the change to all nodes.
-- Returns epoch, version, count and the diff.
local function publish_diff(room, steps, joined, updated, left)
  local state = state_key(room)
  local version = redis.call('HINCRBY', state, 'version', steps)
  local epoch, count = redis.call('HGET', state, 'epoch'), redis.call('ZCARD', members_key(room))
  if not epoch then
    epoch = new_epoch()
    redis.call('HSET', state, 'epoch', epoch)
    -- A diff from version 0 means that the room was empty. Where it was not, because its state was deleted
    -- externally, skipping a version makes the diff follow no known one, so that every node lists the room again.
    if count > #joined then version = redis.call('HINCRBY', state, 'version', 1) end
  end
  local diff = cmsgpack.pack({ epoch, version - steps, version, count, joined, updated, left })
  redis.call(PUBLISH, SHARD .. ':diff:' .. room, diff)
  if #joined + #left > 0 then -- the log exists only where webhooks are in use, and is not created here
    redis.call('XADD', CHANGES, 'NOMKSTREAM', 'MAXLEN', '~', DEPARTURES_KEPT, '*', 'room', room, 'diff', diff)
  end
  return epoch, version, count, diff
end
