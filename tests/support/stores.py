"""The store for tests: on an event loop as the server uses it, or over a blocking client without a loop."""

from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, TypeVar

import anyio
import redis
from anyio.abc import TaskGroup

from reactor.backend.connect import open_backend
from reactor.backend.interface import Backend
from reactor.backend.scripts import Script, load_scripts
from reactor.backend.target import parse_url
from reactor.fleet.registry import Registry
from reactor.presence.departures import Departures
from reactor.presence.lua_sources import lua_sources
from reactor.presence.store import Store
from tests.support.keyspace import keyspace
from tests.support.servers import Server

T = TypeVar("T")
NAMESPACE = "t"

SHIFT = """
-- Moves every deadline of a shard ARGV[1] ms nearer, as if that much time had passed.
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
def _scripts(departures_kept: int) -> Mapping[str, Script]:
    return load_scripts(lua_sources(departures_kept=departures_kept))


class DirectRunner:
    """Runs a script over a blocking client, and loads it when the server answers NOSCRIPT."""

    def __init__(self, client: Any, *, departures_kept: int = 100_000) -> None:
        self._client = client
        self._scripts = _scripts(departures_kept)

    @cached_property
    def run_id(self) -> str:
        """The run id of the server, which is the last argument of scripts that take it."""
        return str(self._client.info("server")["run_id"])

    def source(self, name: str) -> str:
        """A script's whole text."""
        return self._scripts[name].source

    async def run(self, name: str, prefix: str, *args: Any) -> Any:
        script = self._scripts[name]
        if script.takes_server:
            args = (*args, self.run_id)
        try:
            reply = self._client.evalsha(script.digest, 1, prefix, *args)
        except redis.exceptions.NoScriptError:
            reply = self._client.eval(script.source, 1, prefix, *args)
        if not script.together:
            return reply
        (row,) = reply
        if isinstance(row, Exception):
            raise row
        return row


def done(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the coroutine suspended")


class Direct:
    """The store over a blocking client, with a method that lets time pass."""

    def __init__(self, server: Any) -> None:
        self.client = redis.Redis(unix_socket_path=str(server.socket), protocol=2)
        self.runner: Any = DirectRunner(self.client)
        self.store = Store(self.runner, keyspace(NAMESPACE))
        self.registry = Registry(self.runner, self.store.keys)
        self._shift = self.client.register_script(SHIFT)

    def pass_time(self, milliseconds: int) -> None:
        """Move all deadlines nearer. Expired keys are left 2 ms; wait until these have passed, too."""
        self._shift(args=[milliseconds, f"{{{NAMESPACE}:*"])
        self.client.execute_command("DEBUG", "SLEEP", "0.004")


@dataclass
class Connected:
    """A backend on the running loop, and the store, fleet and departures over it."""

    backend: Backend
    tasks: TaskGroup
    health: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Store(self.backend.runner, keyspace(NAMESPACE))
        self.registry = Registry(self.backend.runner, self.store.keys)
        self.departures = Departures(self.backend.client_of, self.store.keys)
        self.backend.on_health = lambda healthy, _reason: self.health.append(healthy)


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Connected]:
    backend = await open_backend(parse_url(server.socket_url), lua_sources(departures_kept=10_000))
    try:
        async with anyio.create_task_group() as tasks:
            for loop in backend.loops:
                tasks.start_soon(loop)
            yield Connected(backend, tasks)
            tasks.cancel_scope.cancel()
    finally:
        await backend.aclose()
