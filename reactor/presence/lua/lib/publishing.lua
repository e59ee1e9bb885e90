-- Diffs of a room. PUBLISH and DEPARTURES_KEPT are constants that the loader sets.

local logs = {} -- by prefix: whether the shard has a log of changes, which exists only where webhooks are in use

-- Whether changes are to be logged. Read once in a call: in an `XADD ... NOMKSTREAM` for each member, the whole diff
-- would be passed to Redis for nothing.
local function has_log(prefix)
  if logs[prefix] == nil then logs[prefix] = redis.call('EXISTS', prefix .. ':changes') == 1 end
  return logs[prefix]
end

-- How many of some keys exist, of which usually none does. The same command finds out whether the shard, and those of
-- `prefixes`, have a log of changes. Of a shard without one, logs of others may be counted as keys.
local function count_existing(keys, prefixes)
  prefixes[SHARD] = true
  for prefix in pairs(prefixes) do keys[#keys + 1] = prefix .. ':changes' end
  local found = redis.call('EXISTS', unpack(keys))
  if found > 0 and not has_log(SHARD) then return found end
  for prefix in pairs(prefixes) do
    if found == 0 then
      logs[prefix] = false
    elseif has_log(prefix) then
      found = found - 1
    end
  end
  return found
end

-- Advances the room's version by `steps` and publishes the change to all nodes. `count` is that of the members, where
-- the caller knows it. Returns epoch, version, count and the diff.
local function publish_diff(room, steps, joined, updated, left, count)
  local state = state_key(room)
  local version = call('HINCRBY', state, 'version', steps)
  local epoch = call('HGET', state, 'epoch')
  if version < steps or epoch and not is_epoch(epoch) then -- another program wrote it
    call('ZCARD', state) -- it is no sorted set, so that this renames it aside
    version, epoch = call('HINCRBY', state, 'version', steps), nil
  end
  count = count or call('ZCARD', members_key(room))
  if not epoch then
    epoch = new_epoch()
    call('HSET', state, 'epoch', epoch)
    -- A diff from version 0 means that the room was empty. Where it was not, because its state was deleted
    -- externally, skipping a version makes the diff follow no known one, so that every node lists the room again.
    if count > #joined then version = call('HINCRBY', state, 'version', 1) end
  end
  local diff = cmsgpack.pack({ epoch, version - steps, version, count, joined, updated, left })
  redis.call(PUBLISH, CHANNELS .. ':diff:' .. room, diff)
  if #joined + #left > 0 and has_log(SHARD) then
    call('XADD', CHANGES, 'NOMKSTREAM', 'MAXLEN', '~', DEPARTURES_KEPT, '*', 'room', room, 'diff', diff)
  end
  return epoch, version, count, diff
end
