"""The store over a blocking client: for tests that need no loop, only the scripts and a real server."""

from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

import redis

from reactor.backend.scripts import Script, load_scripts
from reactor.fleet.registry import Registry
from reactor.presence.store import Store

T = TypeVar("T")
NAMESPACE = "t"

SHIFT = """
-- Moves every deadline of a shard nearer by ARGV[1] ms, as if that much time had passed.
local by = tonumber(ARGV[1])
local cursor = '0'
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', ARGV[2], 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    local left = redis.call('PTTL', key)
    if left > 0 then redis.call('PEXPIRE', key, math.max(2, left - by)) end
    if string.find(key, ':members:', 1, true) or string.match(key, ':rooms$') then
      local rows = redis.call('ZRANGE', key, 0, -1)
      for _, row in ipairs(rows) do redis.call('ZINCRBY', key, -by, row) end
    end
  end
until cursor == '0'
"""


@cache
def _scripts(departures_kept: int) -> dict[str, Script]:
    return load_scripts(departures_kept=departures_kept)


class DirectRunner:
    """Runs a script at once. NOSCRIPT is answered by sending the source."""

    def __init__(self, client: Any, *, departures_kept: int = 100_000) -> None:
        self._client = client
        self._scripts = _scripts(departures_kept)

    def source(self, name: str) -> str:
        """A script's whole text."""
        return self._scripts[name].source

    async def run(self, name: str, prefix: str, *args: Any) -> Any:
        script = self._scripts[name]
        try:
            return self._client.evalsha(script.digest, 1, prefix, *args)
        except redis.exceptions.NoScriptError:
            return self._client.eval(script.source, 1, prefix, *args)


def done(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waited")


class Direct:
    """A server, its store, and a way to let time pass."""

    def __init__(self, server: Any) -> None:
        self.client = redis.Redis(unix_socket_path=str(server.socket), protocol=2)
        self.runner: Any = DirectRunner(self.client)
        self.store = Store(self.runner, NAMESPACE)
        self.registry = Registry(self.runner, NAMESPACE)
        self._shift = self.client.register_script(SHIFT)

    def pass_time(self, milliseconds: int) -> None:
        """Move all deadlines nearer, and wait out the two milliseconds that the lapsed still have."""
        self._shift(args=[milliseconds, f"{{{NAMESPACE}:*"])
        self.client.execute_command("DEBUG", "SLEEP", "0.004")
