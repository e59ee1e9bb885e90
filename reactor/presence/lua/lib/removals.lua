-- Removals: how a user's last membership in a room ended, where the user did not end it and no connection was lost: by
-- a kick or by inactivity, say. A client that was offline at that moment learns of it when it returns.

local REMOVAL_TTL = 3600000 -- ms

local function note_removal(room, user, removal)
  if removal.reason == 'left' or removal.reason == 'disconnected' then return end
  redis.call('SET', removal_key(room, user), cmsgpack.pack(removal), 'PX', REMOVAL_TTL)
end

-- The removal that ended the joining of a client that returns, or nil: the removal of that membership, or a later one
-- of the same user. `version` is the last one that the client saw, so within one epoch it needs no clock; a joining in
-- the room's present epoch is newer than a removal in another.
local function find_removal(room, user, joined_at, epoch, version)
  local packed = call('GET', removal_key(room, user))
  if not packed then return nil end
  local readable, removal = pcall(cmsgpack.unpack, packed)
  if not readable or type(removal) ~= 'table' then return nil end -- overwritten externally
  local ended = (tonumber(removal.at) or 0) > joined_at
  if removal.epoch == epoch then
    ended = version < (tonumber(removal.version) or 0)
  elseif call('HGET', state_key(room), 'epoch') == epoch then
    ended = false
  end
  return (ended or removal.joined_at == joined_at) and removal or nil
end
