-- Names of keys. All keys of a shard start with its prefix, which is the one declared key: on a cluster it carries
-- the hash tag, and with it the slot. Rooms and users stand in keys in their escaped form.

local SHARD = KEYS[1]
local CHANNELS = SHARD .. DATABASE -- what the shard's channels start with; DATABASE is a constant of the loader
local ROOMS = SHARD .. ':rooms' -- room -> a lower bound of the earliest deadline among its members
local NODES = SHARD .. ':nodes'
local CHANGES = SHARD .. ':changes'

local function presence_key(room, user) return SHARD .. ':room:' .. room .. ':user:' .. user end
local function shadow_key(room, user) return SHARD .. ':shadow:room:' .. room .. ':user:' .. user end
local function removal_key(room, user) return SHARD .. ':removal:room:' .. room .. ':user:' .. user end
local function members_key(room) return SHARD .. ':members:' .. room end -- user -> a lower bound of its deadline
local function state_key(room) return SHARD .. ':state:' .. room end
local function node_key(node) return SHARD .. ':node:' .. node end
local function lost_node_key(node) return SHARD .. ':lost:' .. node end
local function node_room_key(node, room) return SHARD .. ':node:' .. node .. ':' .. room end

local function unescape(text)
  if not string.find(text, '%', 1, true) then return text end
  return (string.gsub(text, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

local function node_of(connection) return string.match(connection, '^[^.]+') end
