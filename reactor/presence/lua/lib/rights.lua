-- Rights. A script that is refused in its middle keeps what it wrote before, so that a member would be half there, or
-- its departure never be sent. So each script checks, before its first write, the commands that may follow. One check
-- takes Redis half a microsecond.

local CHECKED = CHANNELS .. ':diff' -- as a key, and as a channel

-- The command, where this user may not run it on the shard's keys; else false. `...`: as many words after the key as it
-- takes, since Redis 8 checks none with fewer.
local function lacking(command, ...)
  return not redis.acl_check_cmd(command, CHECKED, ...) and command
end

local lacked -- of all changes: false, or the first command that this user may not run

local function lacked_for_changes()
  if lacked == nil then
    lacked = redis.acl_check_cmd and (lacking('PEXPIREAT', 0) or lacking('HSET', 0, 0) or lacking('HDEL', 0)
      or lacking('HINCRBY', 0, 0) or lacking('ZADD', 0, 0) or lacking('ZREM', 0) or lacking('SADD', 0)
      or lacking('SREM', 0) or lacking('DEL') or lacking('SET', 0) or lacking('XADD', '*', 0, 0)
      or lacking(PUBLISH, 0)) or false
  end
  return lacked
end

-- Raises the error that Redis would have raised later.
local function demand(command)
  if command then error({ err = 'NOPERM this user has no permissions for ' .. command }) end
end

-- Before any change.
local function demand_right_to_change() demand(lacked_for_changes()) end

-- Before a new member, or a room in the record of a user, is written: that removes nothing, and logs nothing. counts:
-- whether the room counts at once, so that the user is online.
local function demand_right_to_add(counts)
  if lacked == nil and redis.acl_check_cmd then
    demand(lacking('PEXPIREAT', 0) or lacking('HSET', 0, 0) or lacking('HINCRBY', 0, 0) or lacking('ZADD', 0, 0)
      or lacking('SADD', 0) or lacking(PUBLISH, 0) or counts and (lacking('ZREM', 0) or lacking('HDEL', 0)))
  else
    demand_right_to_change()
  end
end
