"""A client's membership in one room, over however many connections it takes.

It begins with the first join that succeeds and ends when the room is left, the server ends it, or the client
is closed. Meanwhile it is live while it is joined on the open connection, and waits otherwise. Each new
connection restores it (memberships.py): own_state.py keeps what has to be restored, and what has to be sent.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec import UNSET, Struct, json

from reactor.client.delivery import EventFeed, Remove, StatusReporter
from reactor.client.open_connection import ConnectionLost, OpenConnection, too_big
from reactor.client.own_state import OwnChange, OwnState, PendingChange, request_for
from reactor.client.reconnector import Reconnector
from reactor.client.reported_room import ReportedRoom
from reactor.client.status import Status
from reactor.errors import ForceLeave, NotJoined, ReactorError, Refused, RequestTimedOut, Unavailable
from reactor.protocol import messages
from reactor.protocol.events import RoomEvent
from reactor.protocol.json_value import check_whole_text, json_copy, plain_text
from reactor.protocol.requests import Away, Back, JoinRoom, LeaveRoom, Members, Request, Resume, Send

SETTLE_AFTER = 5.0
"""Seconds in which nodes register their members again after Redis lost its data: one lease."""

_SNAPSHOT_RETRY = 1.0  # Seconds at most, drawn at random.


class JoinOptions(Struct, frozen=True, kw_only=True):
    """What a call of `join` gives; None or unset keeps what the server has."""

    username: str | None = None
    data: Any = UNSET
    view: messages.View = "members"


class RoomMembership(StatusReporter):
    """One user's membership in one room.

    Attributes:
        connection: The connection on which the room is joined, or None while it is not.
        view: What the application wants to receive; the connection may watch the room beside.
        own: The own member, with the changes that the server has not confirmed.
        established: Whether a `join` has returned, so that every new connection rejoins.
        pending_joins: The number of calls of `join` under way.
        leaving: Whether the application has asked to leave.
        left_at: When it ended without the server's reply to a leave, by the monotonic clock; else None.
        leave_sent: Whether the leave was sent behind the return on a later connection.
        ended: Whether it has ended; `error` says why, unless the room was left.
        restores_data: Whether a return names name and data; not after it was refused because of them.

    """

    def __init__(
        self, reconnector: Reconnector, tasks: TaskGroup, room_id: str, user_id: str,
        *, queue: int, on_end: Callable[["RoomMembership"], None],
    ) -> None:  # fmt: skip
        super().__init__("join", "leave", "update", "sync", "message", "force-leave", "status")
        self.reconnector = reconnector
        self.room_id = room_id
        self.user_id = user_id
        self.connection: OpenConnection | None = None
        self.own = OwnState()
        self.established = False
        self.pending_joins = 0
        self.leaving = False
        self.left_at: float | None = None
        self.leave_sent = False
        self._left_on: OpenConnection | None = None
        self.ended = False
        self.restores_data = True
        self.error: ReactorError | None = None
        self.socket_id = ""
        self.room = ReportedRoom(room_id, user_id)
        self.events = EventFeed(self.room.sync, queue)
        self.view: messages.View = "members"
        self._joined_at: int | None = None
        self._tasks = tasks
        self._on_end = on_end
        self._sending = False
        self._fetching = False
        self._settling = False

    # What the application does.

    def on(self, kind: str, function: Callable[[Any], object]) -> Remove:
        """Register a callback; see `Room.on`."""
        return self._callbacks.add(kind, function)

    def join_request(self, options: JoinOptions) -> JoinRoom:
        """Return the request of a call of `join`."""
        return JoinRoom(self.room_id, self.user_id or UNSET, options.username, options.data, options.view)

    def establish(self, options: JoinOptions) -> None:
        """Note that a `join` has succeeded: from now on each new connection rejoins."""
        self.established = True
        self.view = options.view
        if self.room.served != "members":
            username = UNSET if options.username is None else options.username
            self.own.confirm(OwnChange(username=username, data=options.data))
        self.restores_data = True

    def rejoin_requests(self) -> list[Request]:
        """Return the requests that restore the membership on a new connection.

        One that has ended while there was none is left by them: the server knows only members as leaving.
        """
        username, data = self.own.confirmed.username, self.own.confirmed.data
        if not self.restores_data:
            username, data = UNSET, UNSET
        join = JoinRoom(
            self.room_id, self.user_id or UNSET, None if username is UNSET else username, data,
            "none" if self.ended else self.view, resume=self._resume(),
        )  # fmt: skip
        if self.ended:
            self.leave_sent = True
            return [join, LeaveRoom(self.room_id)]
        # Sent directly after the join, so that the other members are notified of both at once.
        return [join, Away(self.room_id)] if self.own.away else [join]

    def _resume(self) -> Resume | None:
        if self._joined_at is None:
            return None
        view = self.room.view
        members = len(view.members) if self.room.served == "members" else None
        return Resume(view.epoch, view.version, self._joined_at, members)

    def checked(self, username: str | None, data: Any) -> tuple[str | None, Any]:
        """Return a name and a copy of data, checked before anything is done with them.

        Raises:
            Refused: `bad_request` for what cannot be encoded, `too_big` for what exceeds the server's limit.

        """
        return checked_name(username, self.reconnector.limits), checked_data(data, self.reconnector.limits)

    async def update(self, username: str | None, data: Any) -> None:
        """Change the member's name or data."""
        username, data = self.checked(username, data)
        await self._change(
            OwnChange(username=UNSET if username is None else username, data=data), "room:update"
        )

    async def patch(self, patch: Any) -> None:
        """Change those fields of the member's data that the patch names."""
        if not isinstance(patch, dict):
            raise Refused(
                f"patch takes a dict, not {type(patch).__name__}: pass other data to update", "bad_request"
            )
        await self._change(
            OwnChange(patch=checked_data(patch, self.reconnector.limits, "patch")), "room:update"
        )

    async def send(self, data: Any, to: Iterable[str] | None) -> None:
        """Send a message to the room's other members, or to those users of them."""
        self.check()
        request = Send(
            self.room_id, checked_data(data, self.reconnector.limits), None if to is None else [*to]
        )
        try:
            with self.reconnector.deadline("room:send"):
                if self.connection is None:
                    raise ConnectionLost
                await self.connection.ask(request)
        except ConnectionLost:
            # What is sent is of the moment, so it is neither kept for later nor repeated.
            raise Unavailable("there is no connection, and messages are not kept for later") from None

    async def set_away(self, *, away: bool) -> None:
        """Mark the member as away, or as back."""
        await self._change(OwnChange(away=away), "room:away" if away else "room:back")

    async def leave(self) -> None:
        """Leave the room; return at once where the membership has ended."""
        try:
            with self.reconnector.deadline("leave_room"):
                while not self.ended:
                    self.leaving = True
                    if self.connection is None:
                        raise ConnectionLost
                    await self.connection.ask(LeaveRoom(self.room_id))
        except NotJoined:
            self.end(None)
        except ConnectionLost:
            self._leave_later()
        except (RequestTimedOut, asyncio.CancelledError):
            self._leave_later()
            raise
        except ReactorError:
            self.leaving = False
            if not self.ended:
                raise

    def _leave_later(self) -> None:
        """End the membership for the application; the next connection ends it for the server."""
        if not self.ended:
            self.left_at, self._left_on = monotonic(), self.connection
            self.end(None)

    @property
    def was_left_while_connected(self) -> bool:
        """Whether the leave was sent on a connection that is still open: its reply is late."""
        return self._left_on is not None and not self._left_on.lost

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

    # Changes of the own member.

    async def _change(self, change: OwnChange, what: str) -> None:
        self.check()
        pending = self.own.add(change)
        self._start_sending()
        try:
            with self.reconnector.deadline(what):
                while not pending.settled:
                    self.check()
                    await self._changed.wait()
        finally:
            pending.awaited = False
        if pending.error is not None:
            raise pending.error.with_traceback(None)

    def _start_sending(self) -> None:
        if self.connection is not None and not self._sending:
            self._sending = True
            self._tasks.start_soon(self._send_changes)

    async def _send_changes(self) -> None:
        try:
            while self.connection is not None:
                batch, change = self.own.next_batch()
                if not batch:
                    return
                await self._send_batch(self.connection, batch, change)
        except ConnectionLost:
            pass  # The next connection starts this again.
        finally:
            self._sending = False

    async def _send_batch(
        self, connection: OpenConnection, batch: list[PendingChange], change: OwnChange
    ) -> None:
        try:
            with anyio.fail_after(self.reconnector.request_timeout):
                (reply,) = await connection.ask(request_for(self.room_id, change))
        except TimeoutError:
            return  # It is sent again, with what has been added meanwhile.
        except ReactorError as error:
            self.own.settle(batch, error)
        else:
            if isinstance(reply, messages.RoomUpdated) and self._lists(reply.version):
                change = OwnChange()
            self.own.confirm(change)
            self.own.settle(batch)
            self.restores_data = True
        self._changed.notify()

    def _lists(self, version: int) -> bool:
        """Return whether the list of members is that of a version or a later one."""
        view = self.room.view
        return self.room.served == "members" and not view.waiting and version <= view.version

    # What the server sends.

    def joined(self, connection: OpenConnection, message: messages.RoomJoined) -> None:
        """Note that the room is joined on this connection."""
        self.connection = connection
        self.socket_id = message.socket_id
        self.user_id = self.room.user_id = message.user_id
        if message.joined_at is not UNSET:
            self._joined_at = message.joined_at
        self.reconnector.set_interval(message.heartbeat_interval / 1000)
        self.report(self.room.joined(message))
        own = self.room.members.get(self.user_id)
        if own is not None and own.away and not self.own.away:
            # A member that was away when its last connection was lost stays away until a connection is back.
            connection.post(Back(self.room_id))
        self.refresh_status()
        self._start_sending()

    def report(self, events: list[RoomEvent]) -> None:
        """Deliver events to the application."""
        own = self.room.members.get(self.user_id)
        if own is not None:
            self.own.reported(own)
            self._joined_at = own.joined_at
        for event in events:
            self.events.put(event)
        for event in events:
            self._callbacks.call(event.kind, event)
        self._start_repairs()

    def receive_message(self, message: messages.RoomMessage) -> None:
        """Deliver a message of a member, or of the application's back end."""
        self._callbacks.call("message", message)

    def connection_lost(self) -> None:
        """Note that the connection was lost."""
        self.connection = None
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
            self._callbacks.call("force-leave", error)
        self.refresh_status()

    def _present_status(self) -> Status:
        if self.ended:
            return Status.CLOSED
        if self.connection is None:
            return Status.CONNECTING if self.status is Status.CONNECTING else Status.RECONNECTING
        return self.connection.status

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
        try:
            while (connection := self.connection) is not None and self.room.needs_snapshot:
                try:
                    with anyio.fail_after(self.reconnector.request_timeout):
                        (message,) = await connection.ask(Members(self.room_id))
                except (ConnectionLost, ReactorError, TimeoutError):
                    await anyio.sleep(random.uniform(0.0, _SNAPSHOT_RETRY))  # noqa: S311 - jitter, no secret
                    continue
                if self.connection is connection and isinstance(message, messages.MembersReply):
                    self.report(self.room.listed(message))
        finally:
            self._fetching = False

    async def _settle(self) -> None:
        await anyio.sleep(SETTLE_AFTER)
        self._settling = False
        if not self.ended:
            self.report(self.room.settle())


def checked_id(value: str | int, what: str, limits: messages.MessageLimits | None) -> str:
    """Return an id as text. Raises Refused, `bad_request` or `too_big`, for one that cannot be sent."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Refused(f"{what} takes text or a whole number, not {type(value).__name__}", "bad_request")
    if isinstance(value, str):
        return _checked_text(plain_text(value), what, limits)
    if not -(2**63) <= value < 2**64:
        # Python refuses to convert a number of thousands of digits to text.
        raise Refused(f"{what} is a whole number of more than 64 bits: pass it as text", "bad_request")
    return str(int(value))


def listed(ids: Iterable[str | int], what: str) -> Iterable[str | int]:
    """Return several ids. Raises Refused, `bad_request`, for text, or what is no list."""
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise Refused(f"{what} takes a list of ids, not {type(ids).__name__}", "bad_request")
    return ids


def _checked_text(text: str, what: str, limits: messages.MessageLimits | None) -> str:
    check_whole_text(text, what)
    if limits is not None and (size := len(text.encode())) > limits.id:
        raise too_big(f"{what} takes {size} bytes of UTF-8", limits.id)
    return text


def checked_name(username: str | None, limits: messages.MessageLimits | None) -> str | None:
    """Return a member's name. Raises Refused, `bad_request` or `too_big`, for one that cannot be sent."""
    if username is None:
        return None
    if not isinstance(username, str):
        raise Refused(f"username takes text, not {type(username).__name__}", "bad_request")
    return _checked_text(plain_text(username), "username", limits)


def checked_data(data: Any, limits: messages.MessageLimits | None, what: str = "data") -> Any:
    """Return a copy of data. Raises Refused, `bad_request` or `too_big`, for data that cannot be sent."""
    if data is UNSET:
        return UNSET
    data = json_copy(data, what)
    if limits is not None and (size := len(json.encode(data))) > limits.data:
        raise too_big(f"{what} takes {size} bytes as JSON", limits.data)
    return data
