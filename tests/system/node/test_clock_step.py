"""The clock of the Redis host is set back: deadlines follow.

The clock itself cannot be set in a test. What is stored is moved into the future instead: that is the same to
everything that compares it with the clock.
"""

import time

from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server

HOUR = 3_600_000

LATER = """
-- Moves every time that is stored ARGV[1] ms into the future.
local by = tonumber(ARGV[1])
local cursor = '0'
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', '{reactor:*', 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    local deadline = redis.call('PEXPIRETIME', key)
    if deadline > 0 then redis.call('PEXPIREAT', key, deadline + by) end
    if string.find(key, ':members:', 1, true) or string.match(key, ':rooms$') then
      for _, row in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, by, row) end
    end
    local times = { 'at', 'hold', 'lastActiveAt', 'joinedAt', 'j', 'a' }
    for _, field in ipairs(redis.call('TYPE', key).ok == 'hash' and times or {}) do
      local value = tonumber(redis.call('HGET', key, field) or nil)
      if value and value > 0 then redis.call('HSET', key, field, string.format('%.0f', value + by)) end
    end
  end
until cursor == '0'
"""


async def test_when_the_clock_goes_back_an_hour_members_leave_when_they_should(redis_server: Server) -> None:
    """One is in its grace, one sends no heartbeats, and one does; the last stays."""
    async with (
        served(redis_server, ttl=8, grace=4, lease=1.5, sweep_interval=0.5) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as silent,
        RawClient.connect(node) as cut,
    ):
        await ann.join("lobby", "ann")
        ann.start_heartbeats(0.5)
        await silent.join("lobby", "silent")
        await cut.join("lobby", "cut")
        cut.vanish()
        await ann.until(lambda: not node.reconciler.attachments_of("lobby", "cut"))
        await node.reconciler.detach_queue.join()
        began = time.monotonic()
        redis_server.control.eval(LATER, 0, HOUR)
        await ann.receive_departures(2)
        assert sorted(departures(ann.received)) == [("cut", "disconnected"), ("silent", "inactivity_timeout")]
        assert time.monotonic() - began < 50, "and not an hour"
        assert (await ann.ask("room:count", "room:count", roomId="lobby"))["count"] == 1
        assert not ann.of("room:force-leave")
