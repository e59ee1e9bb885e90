"""The client: one socket to a server, and the rooms that are joined over it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Literal, Self

import anyio
from anyio.abc import TaskGroup
from msgspec import UNSET

from reactor.client.backoff import Backoff
from reactor.client.connection import Connection
from reactor.client.dial import Dialler
from reactor.client.feed import Callbacks
from reactor.client.link import Link
from reactor.client.room import Room
from reactor.client.status import Status
from reactor.client.stay import Stay, Wanted
from reactor.client.stays import Stays
from reactor.errors import ConnectionClosed, Refused, SettingError
from reactor.protocol import messages as said
from reactor.protocol.codec import JSON, MSGPACK
from reactor.protocol.requests import Count, IsPresent, Members, Request

log = logging.getLogger(__name__)


class Client:
    """A connection to a reactor server that keeps itself up, for as long as its `async with` block runs.

        async with Client("ws://127.0.0.1:8765/ws") as client:
            room = await client.join("lobby", user_id=42, username="Ann")
            async for event in room:
                print(event.kind, event.member, room.count)

    It sends heartbeats, comes back by itself when the connection is lost, and joins its rooms again. At the
    end of the block it leaves them. Entering the block connects, and raises at once where that fails.

    Args:
        url: `ws://HOST:PORT/ws`, or `wss://`.
        codec: "json" or "msgpack".
        token: What proves who one is, or a function, async or not, that gets a fresh one for each connection.
        backoff: How long to wait between attempts to come back.
        heartbeat_interval: Seconds; None for what the server says (25 by default).
        request_timeout: Seconds that an answer may take, and a heartbeat before the connection is held dead.
        close_timeout: Seconds that leaving and closing may take at the end of the block.
        queue: Most events that wait for a slow iterator, before it gets one `sync` in their place.
        options: Further arguments of `websockets.asyncio.client.connect`, such as `ssl`, `proxy` or
            `additional_headers`.

    Raises:
        SettingError: An argument is wrong.

    """

    def __init__(
        self, url: str, *, codec: Literal["json", "msgpack"] = "json",
        token: str | Callable[[], Awaitable[str] | str] | None = None,
        backoff: Backoff | None = None, heartbeat_interval: float | None = None,
        request_timeout: float = 10.0, close_timeout: float = 3.0, queue: int = 1024, **options: Any,
    ) -> None:  # fmt: skip
        codecs = {"json": JSON, "msgpack": MSGPACK}
        if codec not in codecs:
            raise SettingError(f'codec takes "json" or "msgpack", not "{codec}"')
        if queue < 1:
            raise SettingError("queue takes a number of events of at least 1")
        self._connection = Connection(
            Dialler(url, codecs[codec], token, options),
            backoff=backoff or Backoff(),
            interval=heartbeat_interval,
            request_timeout=request_timeout,
        )
        self._stays = Stays(self._connection, self._stay)
        self._connection.attend(self._stays, self._status_changed)
        self._close_timeout = close_timeout
        self._queue = queue
        self._callbacks = Callbacks("status")
        self._task: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None
        self._begun = asyncio.Event()

    @property
    def status(self) -> Status:
        """How the connection stands."""
        return self._connection.status

    def on(self, kind: Literal["status"], function: Callable[[Status], object]) -> Callable[[], None]:
        """Have a plain function called with each new status, and get the function that ends it."""
        return self._callbacks.add(kind, function)

    # Its life.

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("a client is used for one block: make another one")
        link = await self._connection.open()
        # In a task of its own the group binds nobody to leave this block where it was entered, and in order.
        self._task = asyncio.create_task(self._live(link), name="reactor client")
        try:
            await self._begun.wait()
        except BaseException:
            self._task.cancel()
            await link.abort()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        with anyio.CancelScope(shield=True):
            await self.close()
        failure = None if self._task.cancelled() else self._task.exception()
        if failure is not None and error is None:
            raise failure

    async def _live(self, link: Link) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._begun.set()
                await self._connection.serve(link)
        except Exception:
            log.exception("the client failed")
            raise
        finally:
            self._connection.give_up(ConnectionClosed("the client has stopped; its log says why"))

    async def close(self, *, leave: bool = True) -> None:
        """Close the connection for good, ahead of the end of the block; the rooms end.

        Args:
            leave: Leave the rooms, so that the others hear of it at once. Without it the server waits for a
                return for as long as its grace.

        """
        tasks, task = self._running(), self._task
        assert task is not None
        try:
            if leave and self._connection.end is None:
                with anyio.move_on_after(self._close_timeout):
                    await self._stays.leave_all()
            self._stays.end_all(None)
            await self._connection.close(self._close_timeout)
        finally:
            tasks.cancel_scope.cancel()
            await asyncio.wait([task])

    # Rooms.

    async def join(
        self, room_id: str | int, *, user_id: str | int | None = None, username: str | None = None,
        data: Any = UNSET, view: said.View = "members",
    ) -> Room:  # fmt: skip
        """Join a room, and stay in it until it is left, ended by the server, or the client is closed.

        To join a room anew as the same user changes what is given, and returns the same `Room`.

        Args:
            room_id: Text or a whole number, which is text from here on.
            user_id: The same; None for the one that the token says.
            username: What others see; the user id if there is no other name.
            data: Any small JSON for others to see.
            view: Hear of the members, of their `count` alone, or of `none`.

        Raises:
            RoomFull: The room has as many members as it may have.
            Unavailable: The server has no Redis now.
            Refused: The server refused for another reason, and says which.
            RequestTimedOut: No answer, or no connection, in time.
            ConnectionClosed: The client was closed, or the server closed it for good.

        """
        self._running()
        wanted = Wanted(username=username, data=data, view=view)
        with self._connection.deadline("join_room"):
            user = "" if user_id is None else _text(user_id, "user_id")
            return Room(await self._stays.enter(_text(room_id, "room_id"), user, wanted))

    async def members(self, room_id: str | int) -> list[said.Member]:
        """Return who is in a room, joined or not.

        Raises:
            Refused: `too_large`: the server tells only the count of a room of this size.
            ReactorError: As `join`.

        """
        name = _text(room_id, "room_id")
        reply = await self._ask(Members(name), "room:members")
        assert isinstance(reply, said.MembersReply)
        if reply.members is UNSET:
            sentence = f"{reply.count} members are more than the server lists: ask for the count"
            raise Refused(sentence, "too_large")
        return reply.members

    async def count(self, room_id: str | int) -> int:
        """Return how many are in a room, joined or not. Raises as `join`."""
        reply = await self._ask(Count(_text(room_id, "room_id")), "room:count")
        assert isinstance(reply, said.CountReply)
        return reply.count

    async def is_present(self, room_id: str | int, user_id: str | int) -> bool:
        """Return whether a user is in a room, joined or not. Raises as `join`."""
        request = IsPresent(_text(room_id, "room_id"), _text(user_id, "user_id"))
        reply = await self._ask(request, "room:is_present")
        assert isinstance(reply, said.IsPresentReply)
        return reply.present

    def _stay(self, room_id: str, user_id: str, wanted: Wanted, on_over: Callable[[Stay], None]) -> Stay:
        return Stay(
            self._connection, self._running(), room_id, user_id, wanted, queue=self._queue, on_over=on_over
        )

    async def _ask(self, request: Request, what: str) -> said.ServerMessage:
        self._running()
        return await self._connection.ask(request, what)

    def _running(self) -> TaskGroup:
        if self._tasks is None:
            raise RuntimeError("a client works inside its block: `async with Client(url) as client:`")
        return self._tasks

    def _status_changed(self) -> None:
        self._stays.refresh_status()
        if self._connection.end is not None:
            self._stays.end_all(self._connection.end)
        self._callbacks.call("status", self.status)


def _text(value: str | int, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Refused(f"{what} takes text or a whole number, not {type(value).__name__}", "bad_id")
    return str(value)
