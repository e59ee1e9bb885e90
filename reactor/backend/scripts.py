"""Loads Lua scripts, and runs them in batches.

All calls to a server pass through one queue and one connection, in order. Calls that are made while a batch
is being sent form the next one, so that a thousand concurrent callers cost one round trip. Scripts are called
by digest, and loaded when the server does not have them.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from time import perf_counter
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from reactor.backend.clients import CONNECTION_ERRORS
from reactor.backend.lua import Constant, Library, LuaLinkError
from reactor.backend.pipeline import CommandPipeline
from reactor.errors import Unavailable
from reactor.histogram import SECONDS, Histogram

MAX_BATCH = 512
"""Calls in one round trip at most, which bounds the replies that Redis has to buffer."""

_MAX_LOADS = 3  # times that the scripts are loaded for one batch, in case they are flushed again and again
_OUTAGES = (BusyLoadingError, ReadOnlyError, MasterDownError, ClusterDownError)
_OUTAGE_WORDS = ("NOREPLICAS", "MISCONF", "BUSY", "UNKILLABLE")
"""Error replies of a server that answers, but accepts no writes at present."""

Times = defaultdict[str, Histogram]
"""Seconds from the call to the reply of each script, including the wait in the queue."""

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command  # its stub declares tuples of one element
_HEADER_LINE = re.compile(r"^-- (KEYS|ARGV|Returns|Publishes): ?(.*)$")


@dataclass(frozen=True, slots=True)
class ScriptSources:
    """An application's Lua files, by path.

    library: declarations that the scripts share, see `Library`. constants: names that the Lua may use beside
    PUBLISH, and their values. growing: the names of scripts that add data.
    """

    scripts: Mapping[str, str]
    library: Mapping[str, str]
    constants: Mapping[str, Constant]
    growing: frozenset[str]


@dataclass(frozen=True, slots=True)
class Script:
    """A script: its name, its whole text, and the digest by which Redis knows it."""

    name: str
    source: str
    digest: str


def new_times() -> Times:
    """Return empty histograms by script."""
    return defaultdict(lambda: Histogram(SECONDS))


def load_scripts(sources: ScriptSources, *, publish: str = "PUBLISH") -> dict[str, Script]:
    """Return the scripts by name, each linked with what it uses of the library.

    publish: `SPUBLISH` on a cluster, where a room's channel lives on its shard's node only
    (https://redis.io/docs/latest/develop/pubsub/#sharded-pubsub). Raises LuaLinkError.
    """
    library = Library(sources.library, {**sources.constants, "PUBLISH": publish})
    scripts: dict[str, Script] = {}
    for file, text in sources.scripts.items():
        name = file.rpartition("/")[2].removesuffix(".lua")
        if name in scripts:
            raise LuaLinkError(f"{file}: there is another script named {name}")
        # Beyond maxmemory Redis refuses only what makes it grow, so that a departure never fails
        # (https://redis.io/docs/latest/develop/programmability/lua-api/#script-flags).
        flags = "" if name in sources.growing else " flags=allow-oom"
        source = f"#!lua{flags}\n{library.link(file, text)}"
        scripts[name] = Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())
    return scripts


def _is_outage(reply: Any) -> bool:
    if isinstance(reply, MovedError | AskError | TryAgainError):
        return False
    if isinstance(reply, ResponseError):
        return isinstance(reply, _OUTAGES) or str(reply).startswith(_OUTAGE_WORDS)
    return isinstance(reply, Exception)


def read_header(text: str) -> Mapping[str, str]:
    """Return a script's header block: ARGV, Returns and Publishes, each as one text."""
    header: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        if match := _HEADER_LINE.match(line):
            key, header[match[1]] = match[1], match[2]
        elif key:
            header[key] += " " + line.removeprefix("--").strip()
    return header


class Redirected(Unavailable):
    """The server does not serve the slot, or not now, so the script has not run.

    moved: another server has the slot; otherwise it is being migrated.
    """

    def __init__(self, *, moved: bool) -> None:
        super().__init__("the slot is served by another node" if moved else "the slot is being moved")
        self.moved = moved


_Call = tuple[Script, bytes, asyncio.Future[Any]]
"""A script, the packed command, and the future for the reply."""


class ScriptRunner:
    """The queue of script calls to one Redis server, which `serve` sends.

    on_health(healthy, reason): called when Redis stops accepting commands, and when it accepts them again.
    times: the histograms to which each call's duration is added.
    """

    def __init__(
        self,
        redis: Redis,
        scripts: Mapping[str, Script],
        *,
        on_health: Callable[[bool, str], None] | None = None,
        times: Times | None = None,
    ) -> None:
        self.times = new_times() if times is None else times
        self._pipeline = CommandPipeline(redis)
        self._scripts = scripts
        self._loads = [_pack(("SCRIPT", "LOAD", script.source)) for script in scripts.values()]
        self._queue: list[_Call] = []
        self._wakeup = asyncio.Event()
        self._ended = False
        self._on_health = on_health
        self.healthy = True

    async def run(self, name: str, prefix: str, *args: str | bytes | int | float) -> Any:
        """Run a script on the shard that `prefix` names, and return its raw reply.

        Raises Unavailable when Redis did not answer: whether the script ran is then unknown.
        """
        if self._ended:
            raise Unavailable("the server is shutting down")
        script = self._scripts[name]
        # Packed here, so that an argument that cannot be encoded fails its own call, and not the batch.
        call = _pack(("EVALSHA", script.digest, 1, prefix, *args))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((script, call, future))
        self._wakeup.set()
        called_at = perf_counter()
        try:
            return await future
        finally:
            self.times[name].add(perf_counter() - called_at)

    async def serve(self) -> None:
        """Send batch after batch until cancelled; waiting and later calls then raise Unavailable."""
        self._ended = False
        try:
            while True:
                await self._wakeup.wait()
                batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
                if not self._queue:
                    self._wakeup.clear()
                try:
                    await self._send(batch)
                except asyncio.CancelledError:
                    self._queue[:0] = batch
                    raise
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Fail all waiting and later calls with Unavailable."""
        self._ended = True
        for *_, future in self._queue:
            if not future.done():
                future.set_exception(Unavailable("the server is shutting down"))
        self._queue.clear()

    async def _send(self, batch: Sequence[_Call]) -> None:
        calls = [call for _, call, _ in batch]
        try:
            replies = await self._pipeline.exchange(calls)
            for _ in range(_MAX_LOADS):
                missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                if not missing:
                    break
                # One missing script means that the cache was flushed. All are loaded before any call is sent
                # again, over the same connection and in order, so that no call overtakes an earlier one.
                again = await self._pipeline.exchange([*self._loads, *(calls[i] for i in missing)])
                for reply in again[: len(self._loads)]:
                    if isinstance(reply, Exception):
                        raise reply
                for i, reply in zip(missing, again[len(self._loads) :], strict=True):
                    replies[i] = reply
        except CONNECTION_ERRORS as error:
            replies = [error] * len(batch)
        self._note_health(next(filter(_is_outage, replies), None))
        for (script, _, future), reply in zip(batch, replies, strict=True):
            if future.done():
                continue
            if isinstance(reply, Exception):
                future.set_exception(self._explain(script, reply))
            else:
                future.set_result(reply)

    def _note_health(self, failed: Exception | None) -> None:
        if self.healthy is (failed is None):
            return
        self.healthy = failed is None
        if self._on_health is not None:
            self._on_health(self.healthy, str(failed or ""))

    @staticmethod
    def _explain(script: Script, error: Exception) -> Exception:
        if isinstance(error, MovedError | AskError | TryAgainError):
            return Redirected(moved=type(error) is MovedError)
        if isinstance(error, ResponseError):
            return Unavailable(f"Redis refused {script.name}: {error}")
        return Unavailable(f"Redis did not answer: {error}")
