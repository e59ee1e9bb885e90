"""The requests of each connection that are under way, and those that wait for them.

A connection has at most MAX_UNDER_WAY requests under way; further ones are held, and carried out in their
order. So what a client can make this node and Redis do at a time is bounded, however much it sends. The
requests of all connections together take a bounded number of bytes.
Heartbeats and changes of `away` are not in this queue: they are collected in batches.
"""

from asyncio import Task, current_task
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from sys import getsizeof
from typing import Any, Final

from reactor.gateway.connection import Connection
from reactor.protocol import intents
from reactor.protocol.byte_budget import FREE_BYTES, ByteBudget
from reactor.protocol.intents import Intent
from reactor.tasks import Spawner

MAX_UNDER_WAY = 4
"""Requests of one connection that are carried out at a time."""

CONNECTION_BYTES: Final = 256 * 1024
"""Most bytes of the requests of one connection, beside a join with data for each room that it may join."""
NODE_BYTES: Final = 32 * 1024 * 1024
"""Most bytes of the requests of all connections together, beyond the free ones of each."""

_REQUEST = 300  # bytes of a request beside its ids and data, about
_READING = frozenset({intents.ListMembers, intents.CountMembers, intents.AskPresent, intents.FollowPeople})


class _Requests:
    """The requests of one connection; kept only while there are any."""

    __slots__ = ("barriers", "bytes", "held", "reading", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self.bytes = 0  # of those under way and those held
        self.barriers = 0
        self.held: deque[Intent] | tuple[()] = ()
        self.reading: list[Task[Any]] | tuple[()] = ()


class RequestQueue:
    """Carries out requests with `carry_out(connection, intent)`, which answers each and does not raise.

    admit(connection, intent): asked before a request is begun; where it is false, the request was refused.
    max_held: requests of one connection that are held at most. max_bytes: of its requests.
    """

    def __init__(
        self,
        carry_out: Callable[[Connection, Any], Coroutine[Any, Any, None]],
        admit: Callable[[Connection, Any], bool],
        tasks: Spawner,
        *,
        max_held: int,
        max_bytes: int = CONNECTION_BYTES,
    ) -> None:
        self._carry_out, self._admit, self._tasks = carry_out, admit, tasks
        self._max_held = max_held
        self._budget = ByteBudget(max_bytes, NODE_BYTES)
        self._requests: dict[Connection, _Requests] = {}

    @property
    def bytes(self) -> int:
        """The bytes of all requests, beyond the free ones of each connection."""
        return self._budget.used

    def has_place(self, connection: Connection, intent: Intent) -> bool:
        """Return whether one more request of the connection may be added."""
        requests = self._requests.get(connection)
        waiting, size = requests.bytes if requests is not None else 0, size_of(intent)
        if requests is not None and len(requests.held) >= self._max_held:
            return False
        return waiting + size <= FREE_BYTES or self._budget.has_place(waiting, size)

    def add(self, connection: Connection, intent: Intent) -> None:
        """Start a request, or hold it until those before it are answered."""
        requests = self._of(connection)
        self._count(requests, size_of(intent))
        if requests.held or requests.barriers or connection.blocked or requests.under_way >= MAX_UNDER_WAY:
            requests.held = requests.held or deque()
            requests.held.append(intent)
        elif not self._begin(connection, requests, intent):
            self._forget_idle(connection, requests)

    def begin_barrier(self, connection: Connection) -> None:
        """Hold further requests until `end_barrier`: they have to see what is about to be written."""
        self._of(connection).barriers += 1

    def end_barrier(self, connection: Connection) -> None:
        """Undo one `begin_barrier`."""
        requests = self._requests.get(connection)
        if requests is not None:  # None where the connection has closed meanwhile
            requests.barriers -= 1
            self._start(connection, requests)

    def resume(self, connection: Connection) -> None:
        """Continue with a connection that reads again: nothing is done for one that does not."""
        requests = self._requests.get(connection)
        if requests is not None:
            self._start(connection, requests)

    def close(self, connection: Connection) -> list[intents.Leave]:
        """Stop what a closed connection only asked for; drop what is held, and return the held leaves."""
        requests = self._requests.pop(connection, None)
        if requests is None:
            return []
        for task in requests.reading:
            task.cancel()
        held, requests.held = requests.held, ()
        for intent in held:
            self._count(requests, -size_of(intent))
        return [intent for intent in held if isinstance(intent, intents.Leave)]

    # Private methods

    def _of(self, connection: Connection) -> _Requests:
        requests = self._requests.get(connection)
        if requests is None:
            requests = self._requests[connection] = _Requests()
        return requests

    def _start(self, connection: Connection, requests: _Requests) -> None:
        while (
            requests.held
            and requests.under_way < MAX_UNDER_WAY
            and not (requests.barriers or connection.blocked)
        ):
            self._begin(connection, requests, requests.held.popleft())
        self._forget_idle(connection, requests)

    def _begin(self, connection: Connection, requests: _Requests, intent: Intent) -> bool:
        if not self._admit(connection, intent):
            self._count(requests, -size_of(intent))
            return False
        requests.under_way += 1
        self._tasks.start_soon(self._run, connection, requests, intent)
        return True

    def _count(self, requests: _Requests, size: int) -> None:
        """Count `size` more bytes of a connection, or fewer."""
        before, after = requests.bytes, requests.bytes + size
        requests.bytes = after
        if before > FREE_BYTES or after > FREE_BYTES:
            self._budget.change(before, size)

    def _forget_idle(self, connection: Connection, requests: _Requests) -> None:
        idle = not requests.under_way and not requests.barriers and not requests.held
        # A refused join replays what was deferred for it, which may have begun a new entry meanwhile.
        if idle and self._requests.get(connection) is requests:
            del self._requests[connection]

    async def _run(self, connection: Connection, requests: _Requests, intent: Intent) -> None:
        try:
            if type(intent) not in _READING:
                await self._carry_out(connection, intent)
            elif not connection.session.closed:
                await self._read(connection, requests, intent)
        finally:
            requests.under_way -= 1
            self._count(requests, -size_of(intent))
            if not connection.session.closed:
                self._start(connection, requests)

    async def _read(self, connection: Connection, requests: _Requests, intent: Intent) -> None:
        """Carry out a request that is cancelled if the connection closes."""
        task = current_task()
        assert task is not None
        requests.reading = [*requests.reading, task]
        try:
            await self._carry_out(connection, intent)
        finally:
            requests.reading = [other for other in requests.reading if other is not task]
            # A task that is cancelled keeps its traceback, and so this frame: not until the garbage collector
            # finds the two, which takes minutes, and meanwhile all that the request holds.
            del task


def size_of(intent: Any) -> int:
    """Return the bytes that a request takes while it waits, about; the same for as long as it does."""
    kind = type(intent)
    if kind is intents.FollowPeople or kind is intents.UnfollowPeople:
        return _REQUEST + _size_of_ids(intent.user_ids or ())
    if kind is intents.WatchRooms or kind is intents.UnwatchRooms:
        refused = [one.room_id for one in intent.refused] if kind is intents.WatchRooms else ()
        return _REQUEST + _size_of_ids(intent.room_ids) + _size_of_ids(refused)
    if kind is intents.SendMessage:
        return _REQUEST + len(intent.data_json) + _size_of_ids(intent.to or ())
    if kind is intents.Join:
        return _REQUEST + len(intent.data_json or b"")
    if kind is intents.UpdateMember:
        return _REQUEST + len(intent.data_json or b"") + len(intent.patch_json or b"")
    return _REQUEST


def _size_of_ids(ids: Iterable[str]) -> int:
    ids = tuple(ids)
    return sum(map(getsizeof, ids)) + 8 * len(ids)
