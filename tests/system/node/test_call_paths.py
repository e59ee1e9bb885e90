"""How many files a reader opens to follow a join or an expiry, counted on the calls of a real one."""

import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import reactor
from reactor.gateway.connection import Connection
from tests.docs.documents import section
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

PACKAGE = str(Path(reactor.__file__).parent) + "/"


class CallPath:
    """The functions of the package that are called from `first` on, up to `last`.

    Calls count, and not that a coroutine continues. Of the tasks that run already when it begins only those
    named in `tasks`, by the coroutine of each, are on the path; the others are about something else. A path
    that begins at a connection ends at the same one, since the others write meanwhile as well.
    """

    def __init__(self, first: str, last: str, tasks: set[str]) -> None:
        self._first, self._last, self._tasks = first, last, tasks
        self._foreign: set[asyncio.Task[Any]] = set()
        self._frames: set[FrameType] = set()
        self._begun = self.complete = False
        self.of: Connection | None = None
        self.calls: list[str] = []
        self.visits: list[str] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        self._foreign = {
            task
            for task in asyncio.all_tasks()
            if not self._tasks & {coroutine.__qualname__ for coroutine in coroutines_of(task)}
        }
        for task in asyncio.all_tasks():
            self._frames.update(coroutine.cr_frame for coroutine in coroutines_of(task))
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            sys.setprofile(None)
        assert self.complete, self.calls

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        sys.setprofile(None)
        try:
            yield
        finally:
            sys.setprofile(self._on_event)

    def _on_event(self, frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if (
            event != "call"
            or self.complete
            or not code.co_filename.startswith(PACKAGE)
            or frame in self._frames
        ):
            return
        self._frames.add(frame)
        if not self._begun and code.co_qualname == self._first:
            self._begun = True
            at = frame.f_locals.get("self")
            if self.of is None and isinstance(at, Connection):
                self.of = at
        if not self._begun or current_task() in self._foreign:
            return
        file = code.co_filename.removeprefix(PACKAGE)
        self.calls.append(f"{file}: {code.co_qualname}")
        if not self.visits or self.visits[-1] != file:
            self.visits.append(file)
        if code.co_qualname == self._last:
            self.complete = self.of is frame.f_locals.get("self")

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(self.visits))

    @property
    def returns(self) -> int:
        """How often the path enters a file again that it had left."""
        return len(self.visits) - len(self.files)


def current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def coroutines_of(task: "asyncio.Task[Any]") -> Iterator[Any]:
    """A task's coroutine and those that it awaits."""
    coroutine: Any = task.get_coro()
    while coroutine is not None and hasattr(coroutine, "cr_await"):
        yield coroutine
        coroutine = coroutine.cr_await


JOIN_FILES, JOIN_RETURNS = 28, 38
EXPIRY_FILES, EXPIRY_RETURNS = 33, 54
"""With the index of people, into which each departure is taken behind the claim."""

MAX_RECORDINGS = 20
"""Recordings until one is undisturbed; on a quiet machine nearly each is."""


async def departures_taken_in(server: Server) -> None:
    """Return once the index of people has taken in all departures, for which it runs scripts."""
    await until(lambda: not server.control.keys("*:exits"))


def to_be_repeated(paths: list[CallPath], *, files: int, returns: int) -> bool:
    """Whether to record the path once more: other tasks use the same queue of scripts meanwhile."""
    if not paths:
        return True
    longer = len(paths[-1].files) > files or paths[-1].returns > returns
    return longer and len(paths) < MAX_RECORDINGS


def document() -> str:
    """The section of ARCHITECTURE.md that says what each file on these paths is for."""
    return section("reactor/ARCHITECTURE.md", "### The files on these paths")


def documented_files() -> set[str]:
    return set(re.findall(r"`([\w/]+\.py)`", document()))


async def test_a_join_is_followed_through_few_files(bundled_server: Server) -> None:
    """The other members are notified on a path of its own, which is not counted."""
    paths: list[CallPath] = []
    async with (
        served(bundled_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await bob.join("lobby", "bob")
        join = node.store.join

        async def answered_after_its_publication(*args: Any, **fields: Any) -> Any:
            reply: Any = await join(*args, **fields)
            with paths[-1].interrupted():
                await bob.until(lambda: any(diff["version"] >= reply.version for diff in bob.of("room:diff")))
            return reply

        node.store.join = answered_after_its_publication  # type: ignore[method-assign]
        while to_be_repeated(paths, files=JOIN_FILES, returns=JOIN_RETURNS):
            path = CallPath("Connection.message_received", "Connection.flush", {"_Lane.serve"})
            paths.append(path)
            with path.recorded():
                await ann.join("lobby", "ann")
            await ann.ask("leave_room", "room:left", roomId="lobby")
            await bob.receive_departures(len(paths))
            await departures_taken_in(bundled_server)
    assert len(paths[-1].files) <= JOIN_FILES, paths[-1].files
    assert paths[-1].returns <= JOIN_RETURNS, paths[-1].visits
    assert set(paths[-1].files) <= documented_files(), "each has a line in ARCHITECTURE.md"


async def test_an_expiry_is_followed_through_few_files(bundled_server: Server) -> None:
    """From the event, over the expulsion of the member's connection, to the diff that another receives."""
    tasks = {"_Lane.serve", "Reaper.serve", "Subscription._read"}
    paths: list[CallPath] = []
    async with (
        served(bundled_server, pacemaker=False, diff_window=0.001) as node,
        RawClient.connect(node) as bob,
    ):
        await bob.join("lobby", "bob")
        while to_be_repeated(paths, files=EXPIRY_FILES, returns=EXPIRY_RETURNS):
            number = len(paths)
            async with RawClient.connect(node) as ann:
                await ann.join("lobby", f"ann-{number}")
                path = CallPath("Listener._on_event", "Connection.flush", tasks)
                (path.of,) = node.roster.connections_of("lobby", "bob")
                paths.append(path)
                with path.recorded():
                    bundled_server.control.pexpire(redis_state.presence_key("lobby", f"ann-{number}"), 1)
                    await bob.receive_departure_of(f"ann-{number}")
                await departures_taken_in(bundled_server)
    assert len(paths[-1].files) <= EXPIRY_FILES, paths[-1].files
    assert paths[-1].returns <= EXPIRY_RETURNS, paths[-1].visits
    assert set(paths[-1].files) <= documented_files(), "each has a line in ARCHITECTURE.md"


def test_the_document_has_the_numbers_of_files() -> None:
    join, expiry = re.findall(r"through (\d+)", document())
    assert (int(join), int(expiry)) == (JOIN_FILES, EXPIRY_FILES)
