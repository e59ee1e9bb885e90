"""The client: one connection to a server, and the rooms joined over it."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, get_args, overload

import anyio
from anyio.abc import TaskGroup
from msgspec import UNSET, Struct

from reactor.client.backoff import Backoff
from reactor.client.delivery import Callbacks
from reactor.client.dial import Dialer, Token
from reactor.client.memberships import RoomMemberships
from reactor.client.open_connection import OpenConnection
from reactor.client.reconnector import Reconnector
from reactor.client.room import Room
from reactor.client.room_membership import JoinOptions, checked_data, checked_id, checked_name
from reactor.client.status import Status
from reactor.client.watched_people import WatchedPeople
from reactor.client.watched_room import WatchedRoom
from reactor.errors import ConnectionClosed, ReactorError, Refused, SettingError
from reactor.protocol import messages
from reactor.protocol.codec import JSON, MSGPACK
from reactor.protocol.requests import Count, IsPresent, Members, Request

log = logging.getLogger(__name__)


class MemberPage(Struct, frozen=True):
    """A part of a room's members, the `count` of all, and the `cursor` of the next page, if there is one."""

    members: list[messages.Member]
    count: int
    cursor: str | None


class Client:
    """A connection to a reactor server that reconnects by itself, as long as its `async with` block runs.

        async with Client("ws://127.0.0.1:8765/ws") as client:
            room = await client.join("lobby", user_id=42, username="Ann")
            async for event in room:
                print(event.kind, event.member, room.count)

    It sends heartbeats, reconnects when the connection is lost, and rejoins its rooms. At the end of the
    block it leaves them. Entering the block connects, and raises where that fails.

    Args:
        url: `ws://HOST:PORT/ws`, or `wss://`.
        codec: "json" or "msgpack".
        token: The token, or a function, async or not, that returns a fresh one for each connection.
        backoff: The delays between attempts to reconnect.
        heartbeat_interval: Seconds between heartbeats; None for the server's interval (25 by default).
        request_timeout: Seconds that a reply may take. A connection on which a heartbeat gets none in this
            time is given up.
        close_timeout: Seconds that leaving and closing may take at the end of the block.
        queue: Most events queued for a slow iterator before it gets one `sync` in their place.
        options: Further arguments of `websockets.asyncio.client.connect`, such as `ssl`, `proxy` or
            `additional_headers`.

    Raises:
        SettingError: An argument is invalid.

    """

    def __init__(
        self, url: str, *, codec: Literal["json", "msgpack"] = "json",
        token: Token = None,
        backoff: Backoff | None = None, heartbeat_interval: float | None = None,
        request_timeout: float = 10.0, close_timeout: float = 3.0, queue: int = 1024, **options: Any,
    ) -> None:  # fmt: skip
        codecs = {"json": JSON, "msgpack": MSGPACK}
        if codec not in codecs:
            raise SettingError(f'codec takes "json" or "msgpack", not "{codec}"')
        if queue < 1:
            raise SettingError("queue takes a number of events, at least 1")
        if not (backoff is None or isinstance(backoff, Backoff)):
            raise SettingError(f"backoff takes a Backoff, not {type(backoff).__name__}")
        times: dict[str, Any] = {"request_timeout": request_timeout, "close_timeout": close_timeout}
        if heartbeat_interval is not None:
            times["heartbeat_interval"] = heartbeat_interval
        for name, seconds in times.items():
            if not (isinstance(seconds, int | float) and seconds > 0):
                raise SettingError(f"{name} takes a number of seconds above 0, not {seconds!r}")
        self._reconnector = Reconnector(
            Dialer(url, codecs[codec], token, options),
            backoff=backoff or Backoff(),
            interval=heartbeat_interval,
            request_timeout=request_timeout,
        )
        self._memberships = RoomMemberships(self._reconnector, self._task_group, queue)
        self._reconnector.set_listener(self._memberships, self._status_changed, self._connection_failed)
        self._close_timeout = close_timeout
        self._callbacks = Callbacks("status", "connection-error")
        self._task: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None
        self._started = asyncio.Event()

    @property
    def status(self) -> Status:
        """The status of the connection."""
        return self._reconnector.status

    @property
    def error(self) -> ReactorError | None:
        """Why the latest attempt to connect failed; None once one has succeeded.

        A `ServerUnreachable` with the HTTP status where the server refused the handshake, a `TokenFailed`, or
        the `ConnectionClosed` after which there will be no other attempt.
        """
        return self._reconnector.error

    @overload
    def on(self, kind: Literal["status"], function: Callable[[Status], object]) -> Callable[[], None]: ...
    @overload
    def on(
        self, kind: Literal["connection-error"], function: Callable[[ReactorError], object]
    ) -> Callable[[], None]: ...
    def on(self, kind: str, function: Callable[[Any], object]) -> Callable[[], None]:
        """Register a plain function, and return the function that removes it.

        Args:
            kind: `status`: called with each new `Status`. `connection-error`: called with each `error`, also
                when the function for the token fails while a connection is open.
            function: Called in the event loop: it must not block. Exceptions are logged.

        Raises:
            ValueError: There is no such kind.
            TypeError: The function is a coroutine function.

        """
        return self._callbacks.add(kind, function)

    # Life cycle.

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("a client can be entered only once: create another one")
        connection = await self._reconnector.open()
        # A task group has to be left in the task that entered it, in reverse order of entering. In a task of
        # its own it does not put that demand on the application.
        self._task = asyncio.create_task(self._serve(connection), name="reactor client")
        try:
            await self._started.wait()
        except BaseException:
            self._task.cancel()
            await connection.abort()
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

    async def _serve(self, connection: OpenConnection) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._started.set()
                await self._reconnector.serve(connection)
        except Exception as error:
            log.exception("the client failed")
            raise _innermost(error) from None
        finally:
            self._reconnector.give_up(ConnectionClosed("the client has stopped; its log says why"))

    async def close(self, *, leave: bool = True) -> None:
        """Close the connection for good, before the end of the block; the memberships end.

        Args:
            leave: Leave the rooms, so that the other members are notified at once. Otherwise the server
                removes the members after its grace, unless they reconnect.

        """
        tasks, task = self._task_group(), self._task
        assert task is not None
        try:
            if leave and self._reconnector.end is None:
                with anyio.move_on_after(self._close_timeout):
                    await self._memberships.leave_all()
            self._memberships.end_all(None)
            await self._reconnector.close(self._close_timeout)
        finally:
            tasks.cancel_scope.cancel()
            await asyncio.wait([task])

    # Rooms.

    async def join(
        self, room_id: str | int, *, user_id: str | int | None = None, username: str | None = None,
        data: Any = UNSET, view: messages.View = "members",
    ) -> Room:  # fmt: skip
        """Join a room, until it is left, the server ends the membership, or the client is closed.

        Joining a room again as the same user changes what is given, and returns an equal `Room`.

        Args:
            room_id: Text or a whole number, which is converted to text.
            user_id: Text or a whole number; None for the user that the token names.
            username: The name that other members see; the user id by default.
            data: Any JSON for other members to see, up to the server's limit of bytes.
            view: What to receive of the room: `members`, only their `count`, or `none`.

        Raises:
            RoomFull: The room is at its limit of members.
            Unavailable: The server has no Redis at the moment.
            Refused: The request was refused for another reason, which the error's `code` names.
            RequestTimedOut: No reply, or no connection, within `request_timeout`.
            ConnectionClosed: The client was closed, or the server closed the connection for good.

        """
        self._task_group()
        room, user = self._text(room_id, "room_id"), "" if user_id is None else self._text(user_id, "user_id")
        if view not in get_args(messages.View):
            raise Refused(f'view takes "members", "count" or "none", not {view!r}', "bad_request")
        limits = self._reconnector.limits
        options = JoinOptions(
            username=checked_name(username, limits), data=checked_data(data, limits), view=view
        )
        with self._reconnector.deadline("join_room"):
            return Room(await self._memberships.join(room, user, options))

    async def online(self, user_id: str | int) -> Room:
        """Be online for those who watch this user, without being in any other room.

        Joins the room `@USER`, which no other user may join. `away()` and `back()` of the `Room` set the
        user's status, and `leave()` ends being online.

        Args:
            user_id: Text or a whole number, which is converted to text.

        Raises:
            ReactorError: As `join`.

        """
        self._task_group()
        user = self._text(user_id, "user_id")
        return await self.join(f"@{user}", user_id=user, view="none")

    async def watch(self, room_id: str | int, *, view: messages.WatchView = "members") -> WatchedRoom:
        """Watch a room without being in it, until it is closed or the client is.

            async with await client.watch("lobby") as room:
                async for event in room:
                    print(room.count)

        The client is neither listed nor counted. A room can be joined and watched at the same time.

        Args:
            room_id: Text or a whole number, which is converted to text.
            view: What to receive of the room: its `members`, or only their `count`.

        Raises:
            Unavailable: The server has no Redis at the moment.
            Refused: It was refused, as `forbidden`; or this client watches the room already.
            RequestTimedOut: No reply, or no connection, within `request_timeout`.
            ConnectionClosed: The client was closed, or the server closed the connection for good.

        """
        self._task_group()
        room = self._text(room_id, "room_id")
        if view not in get_args(messages.WatchView):
            raise Refused(f'view takes "members" or "count", not {view!r}', "bad_request")
        with self._reconnector.deadline("room:watch"):
            return await self._memberships.watched.watch(room, view)

    async def people(self, user_ids: Iterable[str | int]) -> WatchedPeople:
        """Watch whether users are online, in any room, until it is closed or the client is.

            async with await client.people(["7", "8"]) as people:
                async for person in people:
                    print(person.user_id, person.status)

        A user whom this client may not watch is `offline`, as one who is unknown.

        Args:
            user_ids: Text or whole numbers, which are converted to text; a connection may watch 1,000 users.

        Raises:
            Unavailable: The server has no Redis at the moment.
            Refused: It was refused, as `too_many_people`: none of them is watched.
            RequestTimedOut: No reply, or no connection, within `request_timeout`.
            ConnectionClosed: The client was closed, or the server closed the connection for good.

        """
        self._task_group()
        return await self._memberships.people.open(user_ids)

    async def members(self, room_id: str | int) -> list[messages.Member]:
        """Return the members of a room, which need not be joined.

        Raises:
            Refused: `too_large`: the server sends only the count of a room of this size.
            ReactorError: As `join`.

        """
        name = self._text(room_id, "room_id")
        reply = await self._ask(Members(name), "room:members")
        assert isinstance(reply, messages.MembersReply)
        if reply.members is UNSET:
            message = f"the server does not list a room of {reply.count} members: ask for its count"
            raise Refused(message, "too_large")
        return reply.members

    async def members_page(
        self, room_id: str | int, *, limit: int = 100, cursor: str | None = None
    ) -> MemberPage:
        """Return a part of the members of a room of any size, which need not be joined.

        Members that stay throughout are on one of the pages, now and then on two.

        Args:
            room_id: The room.
            limit: About how many members to return, at most 100; a small room may come whole.
            cursor: The `cursor` of the page before; None for the first page.

        Raises:
            ReactorError: As `join`.

        """
        reply = await self._ask(
            Members(self._text(room_id, "room_id"), limit=limit, cursor=cursor), "room:members"
        )
        assert isinstance(reply, messages.MembersReply)
        members = [] if reply.members is UNSET else reply.members
        return MemberPage(members, reply.count, reply.cursor)

    async def count(self, room_id: str | int) -> int:
        """Return the number of a room's members; it need not be joined. Raises as `join`."""
        reply = await self._ask(Count(self._text(room_id, "room_id")), "room:count")
        assert isinstance(reply, messages.CountReply)
        return reply.count

    async def is_present(self, room_id: str | int, user_id: str | int) -> bool:
        """Return whether a user is in a room, which need not be joined. Raises as `join`."""
        request = IsPresent(self._text(room_id, "room_id"), self._text(user_id, "user_id"))
        reply = await self._ask(request, "room:is_present")
        assert isinstance(reply, messages.IsPresentReply)
        return reply.present

    async def _ask(self, request: Request, what: str) -> messages.ServerMessage:
        self._task_group()
        return await self._reconnector.ask(request, what)

    def _task_group(self) -> TaskGroup:
        if self._tasks is None:
            raise RuntimeError("a client works only inside its block: `async with Client(url) as client:`")
        return self._tasks

    def _text(self, value: str | int, what: str) -> str:
        return checked_id(value, what, self._reconnector.limits)

    def _connection_failed(self, error: ReactorError) -> None:
        self._callbacks.call("connection-error", error)

    def _status_changed(self) -> None:
        self._memberships.refresh_status()
        if self._reconnector.end is not None:
            self._memberships.end_all(self._reconnector.end)
        self._callbacks.call("status", self.status)


def _innermost(error: BaseException) -> BaseException:
    """Return the first exception in a task group's exception group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
