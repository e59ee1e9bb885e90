-- Redis's time, read at most once in a call. Key expiry stands still while a script runs, but TIME on Redis 7.0 does
-- not: only the existence of a presence key decides whether a member is alive, and the time which rows to examine.

local clock_reply, clock_ms

local function now()
  if not clock_ms then
    clock_reply = redis.call('TIME')
    clock_ms = clock_reply[1] * 1000 + math.floor(clock_reply[2] / 1000)
  end
  return clock_ms
end

-- A time (ms) as text. Redis writes a number that is passed to a command with up to 17 digits as a floating-point
-- number, which takes several times as long.
local function digits(time) return string.format('%d', time) end

-- A room's epoch: the time in microseconds, which no earlier epoch of the room can have been.
local function new_epoch()
  now()
  return clock_reply[1] .. string.format('%06d', clock_reply[2])
end

-- Whether that is an epoch: another program may have written anything in its place.
local function is_epoch(text) return string.find(text, '^%d+$') ~= nil end
