"""A client's memberships by room: joining, and restoring all of them on each new connection.

A room that the application leaves while there is no connection is left on the next one. Its membership is
kept for that, although the application sees it as ended; joining the room again as the same user cancels the
leave, and another user joins after it.
"""

import logging
import random
from collections.abc import Callable
from time import monotonic

import anyio
from anyio.abc import TaskGroup

from reactor.client.delivery import ChangeNotifier
from reactor.client.open_connection import ConnectionLost, OpenConnection, force_leave, is_transient
from reactor.client.reconnector import Reconnector
from reactor.client.room_membership import JoinOptions, RoomMembership
from reactor.client.watched_people import PeopleWatcher
from reactor.client.watched_rooms import WatchedRooms
from reactor.errors import ReactorError, Refused, RequestTimedOut
from reactor.protocol import messages
from reactor.protocol.requests import LeaveRoom

log = logging.getLogger(__name__)

_CONCURRENT_REJOINS = 16
"""Rooms rejoined at the same time; the server defers at most 32 requests of a connection."""

LEAVE_TIMEOUT = 30.0
"""Seconds for which a leave without a connection is remembered: the server's grace is over by then."""

_REJOIN_RETRY = 2.0  # Seconds at most, drawn at random.

_REFUSED_FOR_DATA = frozenset(
    {"bad_request", "bad_message", "bad_json", "data_too_big", "too_big", "forbidden"}
)
"""Codes with which a return may be refused because of the name or the data in it."""


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
        self.watched = WatchedRooms(reconnector, queue)
        self.people = PeopleWatcher(reconnector)
        self._memberships: dict[str, RoomMembership] = {}
        self._to_leave: dict[str, RoomMembership] = {}  # ended for the application, but not for the server
        self._left = ChangeNotifier()  # notified when one is removed from there

    def __len__(self) -> int:
        return len(self._memberships) + len(self.watched) + len(self.people)

    # What the application does.

    async def join(self, room_id: str, user_id: str, options: JoinOptions) -> RoomMembership:
        """Join a room, and return the membership once the server has replied.

        Args:
            room_id: The room.
            user_id: The user; "" where a token names it.
            options: What to join with.

        Raises:
            ReactorError: As `Client.join`.

        """
        while (membership := self._memberships.get(room_id)) is not None and membership.leaving:
            await membership.wait_ended()
        left = self._to_leave.get(room_id)
        if left is not None and (user_id in ("", left.user_id) or left.was_left_while_connected):
            del self._to_leave[room_id]
        if membership is None:
            membership = self._memberships[room_id] = RoomMembership(
                self._reconnector, self._tasks(), room_id, user_id, queue=self._queue, on_end=self._forget
            )
        elif user_id not in ("", membership.user_id):
            raise Refused(
                f'this client is in the room as "{membership.user_id}": leave it, or use a second client',
                "already_joined",
            )
        membership.pending_joins += 1
        try:
            await self._ask_to_join(membership, options)
        except BaseException as error:
            # It may still succeed; the server processes requests in order.
            given_up = isinstance(error, RequestTimedOut) or not isinstance(error, ReactorError)
            if membership.established:
                if given_up and options.view != membership.view:
                    # Else the server may serve another view than the one that the application has.
                    present = JoinOptions(view=membership.view)
                    self._reconnector.post(membership.join_request(present))
            elif membership.pending_joins == 1:
                membership.end(None)
                if given_up:
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
        self.watched.end_all(error)
        self.people.end_all(error)
        self._to_leave.clear()

    async def _ask_to_join(self, membership: RoomMembership, options: JoinOptions) -> None:
        while True:
            connection = await self._reconnector.connection()
            while membership.room_id in self._to_leave:  # by another user
                await self._left.wait()
            try:
                await connection.ask(membership.join_request(options))
            except ConnectionLost:
                continue
            membership.check()
            membership.establish(options)
            return

    def _forget(self, membership: RoomMembership) -> None:
        if self._memberships.get(membership.room_id) is membership:
            del self._memberships[membership.room_id]
            if membership.left_at is not None:
                self._to_leave[membership.room_id] = membership

    # Changes of the connection.

    async def rejoin_all(self, connection: OpenConnection) -> None:
        """Rejoin every room on a new connection, and leave those that are to be left."""
        slots = anyio.Semaphore(_CONCURRENT_REJOINS)
        self._to_leave = {
            room_id: membership
            for room_id, membership in self._to_leave.items()
            if membership.left_at is not None and monotonic() - membership.left_at < LEAVE_TIMEOUT
        }
        self._left.notify()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.watched.restore_all, connection)
            tasks.start_soon(self.people.restore_all, connection)
            for membership in [*self._memberships.values(), *self._to_leave.values()]:
                if membership.established:
                    tasks.start_soon(self._restore, connection, membership, slots)

    def connection_lost(self) -> None:
        """Note that the connection was lost."""
        for membership in list(self._memberships.values()):
            membership.connection_lost()
        self.watched.connection_lost()
        self.people.connection_lost()

    def refresh_status(self) -> None:
        """Update the status of each membership."""
        for membership in list(self._memberships.values()):
            membership.refresh_status()
        self.watched.refresh_status()
        self.people.refresh_status()

    async def _restore(
        self, connection: OpenConnection, membership: RoomMembership, slots: anyio.Semaphore
    ) -> None:
        try:
            await self._rejoin(connection, membership, slots)
        except ConnectionLost:
            return
        except Exception as error:
            # One room's trouble never ends another room.
            log.exception("rejoining the room %r failed", membership.room_id)
            membership.end(ReactorError(f"the room could not be joined again ({error!r})"))
        if self._to_leave.get(membership.room_id) is membership:
            del self._to_leave[membership.room_id]
            self._left.notify()

    async def _rejoin(
        self, connection: OpenConnection, membership: RoomMembership, slots: anyio.Semaphore
    ) -> None:
        while True:
            try:
                async with slots:
                    if membership.ended and self._to_leave.get(membership.room_id) is not membership:
                        # Meanwhile it was left, and the room perhaps joined again: this would undo that.
                        return
                    with anyio.fail_after(self._reconnector.request_timeout):
                        await connection.ask(*membership.rejoin_requests())
            except TimeoutError:
                continue
            except ReactorError as error:
                if is_transient(error):
                    await anyio.sleep(random.uniform(0.0, _REJOIN_RETRY))  # noqa: S311 - jitter, not a secret
                elif membership.restores_data and getattr(error, "code", None) in _REFUSED_FOR_DATA:
                    membership.restores_data = False
                else:
                    membership.end(error)
                    return
            else:
                return

    # What the server sends.

    def receive(self, connection: OpenConnection, message: messages.ServerMessage) -> None:
        """Pass a message to the membership that it is for."""
        if self.watched:
            self.watched.receive(connection, message, self._tasks())
        self.people.receive(message)
        room_id = getattr(message, "room_id", None) or ""
        membership = self._memberships.get(room_id)
        if membership is None or room_id in self._to_leave:
            self._receive_without_membership(connection, room_id, message)
            return
        match message:
            case messages.RoomJoined():
                membership.joined(connection, message)
            case messages.RoomDiff():
                membership.report(membership.room.diff(message))
            case messages.CountReply(id=None) if membership.view != "none":
                membership.report(membership.room.count_changed(message))
            case messages.MembersReply(id=None) if membership.view == "members":
                membership.report(membership.room.listed(message))
            case messages.RoomMessage():
                membership.receive_message(message)
            case messages.RoomForceLeave(id=None):  # with an id it answers a join, maybe a former one
                membership.end(force_leave(message))
            case messages.RoomLeft() if membership.leaving:
                membership.end(None)

    def _receive_without_membership(
        self, connection: OpenConnection, room_id: str, message: messages.ServerMessage
    ) -> None:
        if isinstance(message, messages.RoomJoined):
            leaves = self._to_leave.get(room_id)
            if leaves is None or not leaves.leave_sent:
                # The call of `join` was cancelled or has timed out, or the room was left during a return.
                connection.post(LeaveRoom(room_id))
        elif isinstance(message, messages.RoomLeft) and self._to_leave.pop(room_id, None) is not None:
            self._left.notify()


async def _leave_quietly(membership: RoomMembership) -> None:
    try:
        await membership.leave()
    except ReactorError:
        # The server removes the member after the grace.
        return
