"""A client's memberships in rooms, over however many connections they take.

A membership begins with the first join that succeeds and ends when the room is left, the server ends it, or
the client is closed. Meanwhile it is live while it is joined on the open connection, and waits otherwise.
What the application wants of it (name, data, view, away) is kept here, so that each new connection restores
it.
"""

import random
from collections.abc import Callable
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec import UNSET, Struct
from msgspec.structs import replace

from reactor.client.delivery import Callbacks, ChangeNotifier, EventFeed
from reactor.client.open_connection import ConnectionLost, OpenConnection, is_transient
from reactor.client.reconnector import Reconnector
from reactor.client.reported_room import ReportedRoom
from reactor.client.status import Status
from reactor.errors import ForceLeave, NotJoined, ReactorError, Refused, RequestTimedOut
from reactor.protocol import messages
from reactor.protocol.events import RoomEvent
from reactor.protocol.requests import Away, Back, JoinRoom, LeaveRoom, Members, Request, Update

SETTLE_AFTER = 5.0
"""Seconds in which nodes register their members again after Redis lost its data: one lease."""

_SNAPSHOT_RETRY = 1.0  # Seconds at most, drawn at random.

_CONCURRENT_REJOINS = 16
"""Rooms rejoined at the same time; the server defers at most 32 requests of a connection."""

_REJOIN_RETRY = 2.0  # Seconds at most, drawn at random.


class DesiredState(Struct, frozen=True, kw_only=True):
    """What the application wants of a membership; None or unset keeps what the server has."""

    username: str | None = None
    data: Any = UNSET
    view: messages.View = "members"
    away: bool = False


class RoomMembership:
    """One user's membership in one room.

    Attributes:
        connection: The connection on which the room is joined, or None while it is not.
        established: Whether a `join` has returned, so that every new connection rejoins.
        pending_joins: The number of calls of `join` under way.
        leaving: Whether a leave was sent.
        ended: Whether it has ended; `error` says why, unless the room was left.

    """

    def __init__(
        self, reconnector: Reconnector, tasks: TaskGroup, room_id: str, user_id: str, desired: DesiredState,
        *, queue: int, on_end: Callable[["RoomMembership"], None],
    ) -> None:  # fmt: skip
        self.reconnector = reconnector
        self.room_id = room_id
        self.user_id = user_id
        self.desired = desired
        self.connection: OpenConnection | None = None
        self.established = False
        self.pending_joins = 0
        self.leaving = False
        self.ended = False
        self.error: ReactorError | None = None
        self.socket_id = ""
        self.status = Status.CONNECTING
        self.room = ReportedRoom(room_id, user_id)
        self.events = EventFeed(self.room.sync, queue)
        self.callbacks = Callbacks("join", "leave", "update", "sync", "message", "force-leave", "status")
        self._tasks = tasks
        self._on_end = on_end
        self._changed = ChangeNotifier()
        self._changes_under_way = 0
        self._fetching = False
        self._settling = False

    # What the application does.

    def join_request(self, desired: DesiredState) -> JoinRoom:
        """Return the request that joins the room; what `desired` leaves out stays as it was."""
        desired = self._merged(desired)
        return JoinRoom(self.room_id, self.user_id or UNSET, desired.username, desired.data, desired.view)

    def _merged(self, desired: DesiredState) -> DesiredState:
        username = self.desired.username if desired.username is None else desired.username
        data = self.desired.data if desired.data is UNSET else desired.data
        return replace(self.desired, username=username, data=data, view=desired.view)

    def rejoin_requests(self) -> list[Request]:
        """Return the requests that restore the membership on a new connection."""
        requests: list[Request] = [self.join_request(self.desired)]
        if self.desired.away:
            # Sent directly after the join, so that the other members are notified of both at once.
            requests.append(Away(self.room_id))
        return requests

    def establish(self, desired: DesiredState) -> None:
        """Note that a `join` has succeeded: from now on each new connection rejoins."""
        self.established = True
        self.desired = self._merged(desired)

    async def update(self, username: str | None, data: Any) -> None:
        """Change the member's name or data."""
        change: dict[str, Any] = {} if username is None else {"username": username}
        if data is not UNSET:
            change["data"] = data
        await self._change(Update(self.room_id, username, data), "room:update", change)

    async def set_away(self, *, away: bool) -> None:
        """Mark the member as away, or as back."""
        if away:
            await self._change(Away(self.room_id), "room:away", {"away": True})
        else:
            await self._change(Back(self.room_id), "room:back", {"away": False})

    async def leave(self) -> None:
        """Leave the room; return at once where the membership has ended."""
        try:
            with self.reconnector.deadline("leave_room"):
                while not self.ended:
                    connection = await self._joined_connection()
                    self.leaving = True
                    try:
                        await connection.ask(LeaveRoom(self.room_id))
                    except ConnectionLost:
                        continue
        except RequestTimedOut:
            # Nothing rejoins, so the server removes the member after the grace.
            self.end(None)
            raise
        except NotJoined:
            self.end(None)
        except ReactorError:
            self.leaving = False
            if not self.ended:
                raise

    async def wait_ended(self) -> None:
        """Return once the membership has ended."""
        while not self.ended:
            await self._changed.wait()

    def check(self) -> None:
        """Raise the error that ended the membership, or NotJoined when the room was left."""
        if not self.ended:
            return
        if self.error is not None:
            raise self.error.with_traceback(None)
        raise NotJoined(f'the room "{self.room_id}" was left: join it again')

    async def _change(self, request: Request, what: str, change: dict[str, Any]) -> None:
        self.check()
        before = self.desired
        # Desired from now on, so that a rejoin includes it if the connection is lost meanwhile.
        self.desired = replace(before, **change)
        self._changes_under_way += 1
        try:
            with self.reconnector.deadline(what):
                while True:
                    connection = await self._joined_connection()
                    try:
                        await connection.ask(request)
                    except ConnectionLost:
                        continue
                    return
        except RequestTimedOut:
            raise
        except ReactorError:
            for name, value in change.items():
                if getattr(self.desired, name) is value:
                    self.desired = replace(self.desired, **{name: getattr(before, name)})
            raise
        finally:
            self._changes_under_way -= 1

    async def _joined_connection(self) -> OpenConnection:
        while True:
            self.check()
            # `lost` is set before `connection_lost` is called here.
            if self.connection is not None and not self.connection.lost:
                return self.connection
            await self._changed.wait()

    # What the server sends.

    def joined(self, connection: OpenConnection, message: messages.RoomJoined) -> None:
        """Note that the room is joined on this connection."""
        self.connection = connection
        self.socket_id = message.socket_id
        self.user_id = self.room.user_id = message.user_id
        self.reconnector.set_interval(message.heartbeat_interval / 1000)
        self.report(self.room.joined(message))
        own = self.room.members.get(self.user_id)
        if own is not None and own.away and not self.desired.away:
            # A member that was away when its last connection was lost stays away until a connection is back.
            connection.post(Back(self.room_id))
        self.refresh_status()

    def report(self, events: list[RoomEvent]) -> None:
        """Deliver events to the application."""
        own = self.room.members.get(self.user_id)
        if own is not None and not self._changes_under_way:
            # Another device of this user may have changed it; a rejoin must not change it back.
            self.desired = replace(self.desired, username=own.username, data=own.data)
        for event in events:
            self.events.put(event)
        for event in events:
            self.callbacks.call(event.kind, event)
        self._start_repairs()

    def connection_lost(self) -> None:
        """Note that the connection was lost."""
        self.connection = None
        self.leaving = False
        self.room.connection_lost()
        self.refresh_status()

    def end(self, error: ReactorError | None) -> None:
        """End the membership; the first reason counts. error: None when the room was left."""
        if self.ended:
            return
        self.ended, self.error, self.connection = True, error, None
        self._on_end(self)
        self.events.end()
        if isinstance(error, ForceLeave):
            self.callbacks.call("force-leave", error)
        self.refresh_status()

    def refresh_status(self) -> None:
        """Update the status, and notify the application of a change."""
        status = self._present_status()
        if status is not self.status:
            self.status = status
            self.callbacks.call("status", status)
        self._changed.notify()

    def _present_status(self) -> Status:
        if self.ended:
            return Status.CLOSED
        if self.connection is None:
            return Status.CONNECTING if self.status is Status.CONNECTING else Status.RECONNECTING
        return Status.DEGRADED if self.connection.degraded else Status.CONNECTED

    # Keeping the list complete.

    def _start_repairs(self) -> None:
        if self.connection is None:
            return
        if self.room.needs_snapshot and not self._fetching:
            self._fetching = True
            self._tasks.start_soon(self._fetch_snapshot)
        if self.room.unsettled and not self._settling:
            self._settling = True
            self._tasks.start_soon(self._settle)

    async def _fetch_snapshot(self) -> None:
        while (connection := self.connection) is not None and self.room.needs_snapshot:
            try:
                with anyio.fail_after(self.reconnector.request_timeout):
                    (message,) = await connection.ask(Members(self.room_id))
            except (ConnectionLost, ReactorError, TimeoutError):
                await anyio.sleep(random.uniform(0.0, _SNAPSHOT_RETRY))  # noqa: S311 - jitter, not a secret
                continue
            if self.connection is connection and isinstance(message, messages.MembersReply):
                self.report(self.room.listed(message))
        self._fetching = False

    async def _settle(self) -> None:
        await anyio.sleep(SETTLE_AFTER)
        self._settling = False
        if not self.ended:
            self.report(self.room.settle())


class RoomMemberships:
    """A client's memberships by room.

    Args:
        reconnector: The client's connection.
        tasks: Returns the client's task group.
        queue: Most events that an iterator may be behind.

    """

    def __init__(self, reconnector: Reconnector, tasks: Callable[[], TaskGroup], queue: int) -> None:
        self._reconnector = reconnector
        self._tasks = tasks
        self._queue = queue
        self._memberships: dict[str, RoomMembership] = {}

    def __len__(self) -> int:
        return len(self._memberships)

    # What the application does.

    async def join(self, room_id: str, user_id: str, desired: DesiredState) -> RoomMembership:
        """Join a room, and return the membership once the server has replied.

        Args:
            room_id: The room.
            user_id: The user; "" where a token names it.
            desired: What to join with.

        Raises:
            ReactorError: As `Client.join`.

        """
        while (membership := self._memberships.get(room_id)) is not None and membership.leaving:
            await membership.wait_ended()
        if membership is None:
            membership = self._memberships[room_id] = RoomMembership(
                self._reconnector, self._tasks(), room_id, user_id, desired,
                queue=self._queue, on_end=self._forget,
            )  # fmt: skip
        elif user_id not in ("", membership.user_id):
            raise Refused(
                f'this client is in the room as "{membership.user_id}": leave it, or use a second client',
                "already_joined",
            )
        membership.pending_joins += 1
        try:
            await self._ask_to_join(membership, desired)
        except BaseException as error:
            if membership.pending_joins == 1 and not membership.established:
                membership.end(None)
                if isinstance(error, RequestTimedOut) or not isinstance(error, ReactorError):
                    # The join may still succeed; the server processes requests in order.
                    self._reconnector.post(LeaveRoom(room_id))
            raise
        finally:
            membership.pending_joins -= 1
        return membership

    async def leave_all(self) -> None:
        """Leave the rooms that are joined; a refusal is ignored."""
        async with anyio.create_task_group() as tasks:
            for membership in [one for one in self._memberships.values() if one.connection is not None]:
                tasks.start_soon(_leave_quietly, membership)

    def end_all(self, error: ReactorError | None) -> None:
        """End every membership."""
        for membership in list(self._memberships.values()):
            membership.end(error)

    async def _ask_to_join(self, membership: RoomMembership, desired: DesiredState) -> None:
        while True:
            connection = await self._reconnector.connection()
            try:
                await connection.ask(membership.join_request(desired))
            except ConnectionLost:
                continue
            membership.check()
            membership.establish(desired)
            return

    def _forget(self, membership: RoomMembership) -> None:
        if self._memberships.get(membership.room_id) is membership:
            del self._memberships[membership.room_id]

    # Changes of the connection.

    async def rejoin_all(self, connection: OpenConnection) -> None:
        """Rejoin every room on a new connection."""
        slots = anyio.Semaphore(_CONCURRENT_REJOINS)
        async with anyio.create_task_group() as tasks:
            for membership in list(self._memberships.values()):
                if membership.established:
                    tasks.start_soon(self._rejoin, connection, membership, slots)

    def connection_lost(self) -> None:
        """Note that the connection was lost."""
        for membership in list(self._memberships.values()):
            membership.connection_lost()

    def refresh_status(self) -> None:
        """Update the status of each membership."""
        for membership in list(self._memberships.values()):
            membership.refresh_status()

    async def _rejoin(
        self, connection: OpenConnection, membership: RoomMembership, slots: anyio.Semaphore
    ) -> None:
        while not membership.ended:
            try:
                async with slots:
                    with anyio.fail_after(self._reconnector.request_timeout):
                        await connection.ask(*membership.rejoin_requests())
            except ConnectionLost:
                return
            except TimeoutError:
                continue
            except ReactorError as error:
                if not is_transient(error):
                    membership.end(error)
                    return
                await anyio.sleep(random.uniform(0.0, _REJOIN_RETRY))  # noqa: S311 - jitter, not a secret
            else:
                return

    # What the server sends.

    def receive(self, connection: OpenConnection, message: messages.ServerMessage) -> None:
        """Pass a message to the membership that it is for."""
        membership = self._memberships.get(getattr(message, "room_id", None) or "")
        if membership is None:
            if isinstance(message, messages.RoomJoined):
                # The call of `join` was cancelled or has timed out.
                connection.post(LeaveRoom(message.room_id))
            return
        match message:
            case messages.RoomJoined():
                membership.joined(connection, message)
            case messages.RoomDiff():
                membership.report(membership.room.diff(message))
            case messages.CountReply(id=None):
                membership.report(membership.room.count_changed(message))
            case messages.MembersReply(id=None):
                membership.report(membership.room.listed(message))
            case messages.RoomMessage():
                membership.callbacks.call("message", message)
            case messages.RoomForceLeave():
                membership.end(
                    ForceLeave(message.message, message.room_id, message.reason, message.timestamp)
                )
            case messages.RoomLeft() if membership.leaving:
                membership.end(None)


async def _leave_quietly(membership: RoomMembership) -> None:
    try:
        await membership.leave()
    except ReactorError:
        # The server removes the member after the grace.
        return
