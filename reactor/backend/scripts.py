"""Loads Lua scripts, and runs them in batches.

Calls to a server pass through two lanes, each with a queue and a connection of its own. The urgent lane has
those that keep members alive and make departures (`ScriptSources.urgent`), so that these never wait behind
listings and joins; the other lane has the rest. Within a lane calls keep their order. Calls that are made
while a batch is being sent form the next one, so that a thousand concurrent callers cost one round trip.
Scripts are called by digest, and loaded when the server does not have them. Some scripts take several rows
of arguments and return a reply for each (`ScriptSources.together`): calls of these that wait at the same time
are sent as one, and each caller gets its own reply.
"""

import asyncio
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha1
from time import perf_counter
from typing import Any, NamedTuple, NoReturn

import anyio
import hiredis
from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from reactor.backend.clients import CONNECTION_ERRORS
from reactor.backend.interface import LaneCounts, NotPermitted, RedisFull, Stopping
from reactor.backend.lua import Constant, Library, LuaLinkError, strip_spaces
from reactor.backend.outages import NO_ANSWER, is_refusal, outage_reason
from reactor.backend.pipeline import CommandPipeline
from reactor.errors import Unavailable
from reactor.histogram import SECONDS, Histogram
from reactor.log import RateLimitedLog

MAX_BATCH = 512
"""Calls in one round trip at most."""
MAX_REPLY_BYTES = 1 << 20
"""Bytes of expected replies in one round trip, about: Redis buffers them until they are read."""
MAX_WAITING_CALLS = 65_536
"""Calls that wait in a lane at most; further ones raise Unavailable."""
MAX_WAITING_BYTES = 32 << 20
"""Bytes of these calls."""

_TAKES_SERVER = "local SERVER = table.remove(ARGV)"
_REPLY_BYTES = 1024  # of a script that `ScriptSources.reply_bytes` does not name
_MAX_LOADS = 3  # times that the scripts are loaded for one batch, in case they are flushed again and again
_MAY_NOT_LOAD = (
    "Redis does not have the scripts of this release, and this user may not load them: "
    "a running `reactor serve` of the same release loads them; or use its user"
)
_OUTAGES = (BusyLoadingError, ReadOnlyError, MasterDownError, ClusterDownError)
_OUTAGE_WORDS = ("NOREPLICAS", "MISCONF", "BUSY", "UNKILLABLE")
"""Error replies of a server that answers, but accepts no writes at present."""
REFUSAL_HOLDS = 2.0
"""Seconds for which a refusal of a vital script counts, while other scripts may succeed."""
REASON_HOLDS = 5.0
"""Seconds for which the reason of an outage stays the same, while calls also fail for other ones."""

LANES = ("urgent", "other")

Times = defaultdict[str, Histogram]
"""Seconds from the call to the reply of each script, including the wait in the queue."""

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command  # its stub declares tuples of one element
_HEADER_LINE = re.compile(r"^-- (KEYS|ARGV|Returns|Publishes): ?(.*)$")


@dataclass(frozen=True, slots=True, eq=False)
class ScriptSources:
    """An application's Lua files, by path. Each instance equals itself alone.

    library: declarations that the scripts share, see `Library`. constants: names that the Lua may use beside
    PUBLISH, and their values. growing: the names of scripts that add data. urgent: of those that have a lane
    of their own. vital: of those without which no member stays alive, so that a refusal of one is an outage.
    reply_bytes: the size of a script's reply, about, where it can be more than a kilobyte. together: of those
    that take a row of arguments for each member and reply to each, how many rows a call has at most. reading:
    of those that change nothing, so that it does not matter whether they run before or after another call.
    """

    scripts: Mapping[str, str]
    library: Mapping[str, str]
    constants: Mapping[str, Constant]
    growing: frozenset[str]
    urgent: frozenset[str]
    vital: frozenset[str]
    reply_bytes: Mapping[str, int]
    together: Mapping[str, int]
    reading: frozenset[str]


@dataclass(frozen=True, slots=True)
class Script:
    """A script: its name, its whole text, and the digest by which Redis knows it.

    urgent: whether it goes through the urgent lane. vital: whether its refusal is an outage. reply_bytes: the
    size of its reply, about, at most. together: rows that one call takes at most, or 0 where it takes no
    rows. reading: whether it changes nothing. takes_server: whether its last argument is the run id of the
    server, which the runner adds. head: the packed beginning of each call: EVALSHA, the digest,
    and the number of keys.
    """

    name: str
    source: str
    digest: str
    urgent: bool
    vital: bool
    reply_bytes: int
    together: int
    reading: bool
    takes_server: bool
    head: bytes


def new_times() -> Times:
    """Return empty histograms by script."""
    return defaultdict(lambda: Histogram(SECONDS))


@lru_cache(maxsize=8)
def load_scripts(sources: ScriptSources, *, publish: str = "PUBLISH") -> Mapping[str, Script]:
    """Return the scripts by name, each linked with what it uses of the library: once for each `sources`.

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
        linked = library.link(file, text)
        source = f"#!lua{flags}\n{strip_spaces(linked)}"
        digest = sha1(source.encode(), usedforsecurity=False).hexdigest()
        reply_bytes = sources.reply_bytes.get(name, _REPLY_BYTES)
        scripts[name] = Script(
            name, source, digest, name in sources.urgent, name in sources.vital, reply_bytes,
            sources.together.get(name, 0), name in sources.reading, _TAKES_SERVER in linked,
            _pack(("EVALSHA", digest, 1))[4:],
        )  # fmt: skip
    return scripts


def _is_outage(script: Script, reply: Any) -> bool:
    if isinstance(reply, MovedError | AskError | TryAgainError):
        return False
    if isinstance(reply, ResponseError):
        return script.vital or isinstance(reply, _OUTAGES) or str(reply).startswith(_OUTAGE_WORDS)
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


class _Call(NamedTuple):
    """A call that waits: `body` has the packed arguments behind the prefix, `arguments` is their number."""

    script: Script
    prefix: str
    body: bytes
    arguments: int
    future: asyncio.Future[Any]


_Command = list[_Call]
"""The calls that are sent as one command: several of one script on one shard, or a single one."""


def _packed(command: _Command, run_id: str) -> bytes:
    prefix, script = command[0].prefix.encode(), command[0].script
    server = b"$%d\r\n%b\r\n" % (len(run_id), run_id.encode()) if script.takes_server else b""
    return b"".join(
        (
            b"*%d\r\n" % (4 + script.takes_server + sum(call.arguments for call in command)),
            script.head,
            b"$%d\r\n%b\r\n" % (len(prefix), prefix),
            *(call.body for call in command),
            server,
        )
    )


def _replies(command: _Command, reply: Any) -> Sequence[Any]:
    """Return the reply of each call of a command. An error of the whole command is that of each."""
    if not command[0].script.together:
        return (reply,)
    if isinstance(reply, list) and len(reply) == len(command):
        return reply
    error = reply if isinstance(reply, Exception) else ResponseError(f"unexpected reply: {reply}")
    return [error] * len(command)


class ScriptRunner:
    """The two lanes of script calls to one Redis server, which `serve` sends.

    on_health(healthy, reason): called when Redis stops accepting commands, and when it accepts them again.
    times: the histograms to which each call's duration is added. refusals: what Redis refused, by script.
    """

    def __init__(
        self,
        redis: Redis,
        scripts: Mapping[str, Script],
        *,
        on_health: Callable[[bool, str], None] | None = None,
        times: Times | None = None,
        refusals: Counter[str] | None = None,
    ) -> None:
        self.times = new_times() if times is None else times
        self.refusals = Counter[str]() if refusals is None else refusals
        self._scripts = scripts
        loads = [_pack(("SCRIPT", "LOAD", script.source)) for script in scripts.values()]
        self._lanes = [_Lane(name, redis, loads, self._note_replies) for name in LANES]
        self._lane_of = {script.name: self._lanes[not script.urgent] for script in scripts.values()}
        self._on_health = on_health
        self._log = RateLimitedLog()
        # Vital scripts and the prefixes for which Redis refuses them, and when it did last.
        self._refused: dict[tuple[str, str], float] = {}
        self.healthy = True
        self._reason, self._reason_at = "", 0.0  # of the outage, and when a call last failed for it

    async def run(self, name: str, prefix: str, *args: str | bytes | int | float) -> Any:
        """Run a script on the shard that `prefix` names, and return its raw reply.

        Raises Unavailable when Redis did not answer: whether the script ran is then unknown. Raises it also
        where too many calls wait. A call that is cancelled before it is sent is not sent. Where the script
        takes rows, `args` is one row, and the reply is that for this row.
        """
        script = self._scripts[name]
        # Packed here, so that an argument that cannot be encoded fails its own call, and not the batch.
        packed = _pack(args)
        body = packed[packed.index(b"\n") + 1 :]
        called_at = perf_counter()
        try:
            return await self._lane_of[name].add(script, prefix, body, len(args))
        finally:
            self.times[name].add(perf_counter() - called_at)

    @property
    def lanes(self) -> Mapping[str, LaneCounts]:
        """How many calls wait in each lane, and how many it has refused."""
        return {lane.name: LaneCounts(lane.waiting, lane.refused) for lane in self._lanes}

    async def serve(self) -> None:
        """Send batch after batch until cancelled; waiting and later calls then raise Unavailable."""
        async with anyio.create_task_group() as tasks:
            for lane in self._lanes:
                tasks.start_soon(lane.serve)

    def abandon(self) -> None:
        """Fail all waiting and later calls with Unavailable."""
        for lane in self._lanes:
            lane.abandon()

    def _note_replies(self, calls: Sequence[_Call], replies: Sequence[Any]) -> None:
        """Take in the replies of a batch: count what was refused, and judge whether this is an outage."""
        failed: Exception | None = None
        now = perf_counter()
        for (script, prefix, *_), reply in zip(calls, replies, strict=True):
            if not isinstance(reply, Exception):
                if script.vital and self._refused:
                    self._refused.pop((script.name, prefix), None)
                continue
            if is_refusal(reply):
                self.refusals[script.name] += 1
                self._log.warning("redis_refused", now, command=script.name, reason=str(reply))
            if _is_outage(script, reply):
                failed = failed or reply
                if script.vital and is_refusal(reply):
                    self._refused[script.name, prefix] = now
        if self._refused and now - max(self._refused.values()) > REFUSAL_HOLDS:
            self._refused.clear()
        # While one vital script is refused for one shard, the success of others, or elsewhere, shows nothing.
        healthy = failed is None and not self._refused
        if failed is not None:
            news = self._is_news(outage_reason(failed), now)
        else:
            news = healthy and not self.healthy
        if news:
            self._report(healthy)

    def _is_news(self, reason: str, now: float) -> bool:
        """Take in why a call failed; return whether that changes the reason of the outage.

        The reason in Redis's words replaces that it does not answer: a connection often breaks first, and the
        next one is refused. Else the reason changes only when the last one is no longer met.
        """
        if reason != self._reason:
            if self._reason not in {"", NO_ANSWER} and now - self._reason_at < REASON_HOLDS:
                return False
            self._reason, self._reason_at = reason, now
            return True
        self._reason_at = now
        return False

    def _report(self, healthy: bool) -> None:
        self.healthy = healthy
        if healthy:
            self._reason = ""
        if self._on_health is not None:
            self._on_health(healthy, self._reason)


class _Lane:
    """Calls that are sent in order over a connection of their own.

    note_replies: called with the calls of each batch and their replies, errors among them.
    """

    def __init__(
        self, name: str, redis: Redis, loads: Sequence[bytes],
        note_replies: Callable[[Sequence[_Call], Sequence[Any]], None],
    ) -> None:  # fmt: skip
        self.name = name
        self._pipeline = CommandPipeline(redis)
        self._loads, self._note_replies = loads, note_replies
        self._queue: deque[_Call] = deque()
        self._queued_bytes = 0
        self._wakeup = asyncio.Event()
        self._ended = False
        self.refused = 0
        self._log = RateLimitedLog()

    @property
    def waiting(self) -> int:
        """How many calls wait to be sent."""
        return len(self._queue)

    def add(self, script: Script, prefix: str, body: bytes, arguments: int) -> asyncio.Future[Any]:
        """Queue a call; return the future of its reply. Raises Unavailable where no more calls may wait."""
        if self._ended:
            raise Stopping
        queued_bytes = self._queued_bytes + len(body)
        if len(self._queue) >= MAX_WAITING_CALLS or queued_bytes > MAX_WAITING_BYTES:
            self._refuse()
        self._queued_bytes = queued_bytes
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(_Call(script, prefix, body, arguments, future))
        self._wakeup.set()
        return future

    async def serve(self) -> None:
        """Send batch after batch until cancelled."""
        self._ended = False
        try:
            while True:
                await self._wakeup.wait()
                batch = self._next_batch()
                if not self._queue:
                    self._wakeup.clear()
                if not batch:
                    continue
                try:
                    await self._send(batch)
                except asyncio.CancelledError:
                    self._queue.extendleft(reversed([call for command in batch for call in command]))
                    raise
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Fail all waiting and later calls with Unavailable."""
        self._ended = True
        for *_, future in self._queue:
            if not future.done():
                future.set_exception(Stopping())
        self._queue.clear()
        self._queued_bytes = 0

    def _refuse(self) -> NoReturn:
        self.refused += 1
        self._log.warning(
            "redis_queue_full", perf_counter(),
            lane=self.name, calls=len(self._queue), bytes=self._queued_bytes,
        )  # fmt: skip
        raise Unavailable("too many calls wait for Redis")

    def _next_batch(self) -> list[_Command]:
        """Take the calls for one round trip; those whose caller no longer waits are dropped.

        A call joins an earlier one of the same script and shard, unless a call that changes something there
        stands between them: no call overtakes another one whose outcome depends on their order.
        """
        queue, batch, room, calls = self._queue, list[_Command](), MAX_REPLY_BYTES, 0
        open_commands: dict[str, _Command] = {}  # by shard: the command that a further call may join
        while queue and calls < MAX_BATCH:
            call = queue[0]
            script = call.script
            if not call.future.done():
                room -= script.reply_bytes
                if room < 0 and batch:
                    break
                calls += 1
                command = open_commands.get(call.prefix)
                if command is not None and command[0].script is script and len(command) < script.together:
                    command.append(call)
                else:
                    batch.append([call])
                    if script.together:
                        open_commands[call.prefix] = batch[-1]
                    elif not script.reading:
                        open_commands.pop(call.prefix, None)
            queue.popleft()
            self._queued_bytes -= len(call.body)
        return batch

    async def _send(self, batch: Sequence[_Command]) -> None:
        try:
            replies = await self._pipeline.exchange(
                lambda run_id: [_packed(command, run_id) for command in batch]
            )
            for _ in range(_MAX_LOADS):
                missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                if not missing:
                    break
                # One missing script means that the cache was flushed. All are loaded before any call is sent
                # again, over the same connection and in order, so that no call overtakes an earlier one.
                again = await self._pipeline.exchange(
                    partial(self._loads_and_commands, [batch[i] for i in missing])
                )
                for reply in again[: len(self._loads)]:
                    if isinstance(reply, Exception):
                        raise reply
                for i, reply in zip(missing, again[len(self._loads) :], strict=True):
                    replies[i] = reply
        except CONNECTION_ERRORS as error:
            replies = [error] * len(batch)
        calls = [call for command in batch for call in command]
        answers = [one for pair in zip(batch, replies, strict=True) for one in _replies(*pair)]
        self._note_replies(calls, answers)
        for call, reply in zip(calls, answers, strict=True):
            if call.future.done():
                continue
            if isinstance(reply, Exception):
                call.future.set_exception(self._explain(call, reply))
            else:
                call.future.set_result(reply)

    def _loads_and_commands(self, commands: Sequence[_Command], run_id: str) -> list[bytes]:
        return [*self._loads, *(_packed(command, run_id) for command in commands)]

    @staticmethod
    def _explain(call: _Call, error: Exception) -> Exception:
        if isinstance(error, MovedError | AskError | TryAgainError):
            return Redirected(moved=type(error) is MovedError)
        if isinstance(error, NoPermissionError):
            message = _MAY_NOT_LOAD if "script|load" in str(error) else _refused_sentence(call, error)
            return NotPermitted(message, str(error), call.prefix)
        if isinstance(error, OutOfMemoryError):
            return RedisFull(str(error), call.prefix)
        if isinstance(error, ResponseError):
            return Unavailable(_refused_sentence(call, error))
        return Unavailable(f"Redis did not answer: {str(error) or type(error).__name__}")


def _refused_sentence(call: _Call, error: Exception) -> str:
    return f"Redis refused {call.script.name}: {error}"
