"""One user's stay in one room, over however many connections it takes.

A stay begins with the first join that is answered and ends when it is left, ended by the server, or the
client is closed. In between it is live while it is joined on the present link, and waits while it is not.
What the user wants of it (name, data, view, away) is kept here, so that each new link takes it up where the
last one was.
"""

import random
from collections.abc import Callable
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec import UNSET, Struct
from msgspec.structs import replace

from reactor.client.connection import Connection
from reactor.client.feed import Callbacks, Feed
from reactor.client.link import Link, LinkLost
from reactor.client.listing import Listing
from reactor.client.signals import Signal
from reactor.client.status import Status
from reactor.errors import ForceLeave, NotJoined, ReactorError, RequestTimedOut
from reactor.protocol.events import RoomEvent
from reactor.protocol.messages import MembersReply, RoomJoined, View
from reactor.protocol.requests import Away, Back, JoinRoom, LeaveRoom, Members, Request, Update

SETTLE = 5.0
"""Seconds in which servers enter their members anew after Redis lost its data: as long as a lease."""

_HEAL_AGAIN = 1.0  # seconds at most, by chance


class Wanted(Struct, frozen=True, kw_only=True):
    """What the user wants to be in the room; what is None or unset stays as the server has it."""

    username: str | None = None
    data: Any = UNSET
    view: View = "members"
    away: bool = False


class Stay:
    """See above.

    Attributes:
        link: The link on which the room is joined, or None while it is not.
        established: Whether a `join` has returned, so that every new link joins again.
        joiners: How many calls of `join` are on their way.
        leaving: Whether the server was asked to let go.
        over: Whether it has ended; `error` says why, unless it was left.

    """

    def __init__(
        self, connection: Connection, tasks: TaskGroup, room_id: str, user_id: str, wanted: Wanted, *,
        queue: int, on_over: Callable[["Stay"], None],
    ) -> None:  # fmt: skip
        self.connection = connection
        self.room_id = room_id
        self.user_id = user_id
        self.wanted = wanted
        self.link: Link | None = None
        self.established = False
        self.joiners = 0
        self.leaving = False
        self.over = False
        self.error: ReactorError | None = None
        self.socket_id = ""
        self.status = Status.CONNECTING
        self.listing = Listing(room_id, user_id)
        self.feed = Feed(self.listing.sync, queue)
        self.callbacks = Callbacks("join", "leave", "update", "sync", "message", "force-leave", "status")
        self._tasks = tasks
        self._on_over = on_over
        self._changed = Signal()
        self._changing = 0
        self._healing = False
        self._settling = False

    # What the user does.

    def join_request(self, wanted: Wanted) -> JoinRoom:
        """Return the request that enters the room; what is not wanted otherwise stays as it was."""
        wanted = self._with(wanted)
        return JoinRoom(self.room_id, self.user_id or UNSET, wanted.username, wanted.data, wanted.view)

    def _with(self, wanted: Wanted) -> Wanted:
        username = self.wanted.username if wanted.username is None else wanted.username
        data = self.wanted.data if wanted.data is UNSET else wanted.data
        return replace(self.wanted, username=username, data=data, view=wanted.view)

    def return_requests(self) -> list[Request]:
        """Return what enters the room again as it was."""
        requests: list[Request] = [self.join_request(self.wanted)]
        if self.wanted.away:
            # On its heels, so that the others hear of both at once.
            requests.append(Away(self.room_id))
        return requests

    def establish(self, wanted: Wanted) -> None:
        """Take note that a `join` has returned: from now on each new link joins again."""
        self.established = True
        self.wanted = self._with(wanted)

    async def update(self, username: str | None, data: Any) -> None:
        """Change name or data, here and for the others."""
        change: dict[str, Any] = {} if username is None else {"username": username}
        if data is not UNSET:
            change["data"] = data
        await self._change(Update(self.room_id, username, data), "room:update", change)

    async def set_away(self, *, away: bool) -> None:
        """Be seen as away, or as here again."""
        if away:
            await self._change(Away(self.room_id), "room:away", {"away": True})
        else:
            await self._change(Back(self.room_id), "room:back", {"away": False})

    async def leave(self) -> None:
        """Leave the room; returns at once where it has ended."""
        try:
            with self.connection.deadline("leave_room"):
                while not self.over:
                    link = await self._live()
                    self.leaving = True
                    try:
                        await link.ask(LeaveRoom(self.room_id))
                    except LinkLost:
                        continue
        except RequestTimedOut:
            # Whom the server could not take out, the grace does, since nobody returns.
            self.end(None)
            raise
        except NotJoined:
            self.end(None)
        except ReactorError:
            self.leaving = False
            if not self.over:
                raise

    async def ended(self) -> None:
        """Return once the stay is over."""
        while not self.over:
            await self._changed.wait()

    def check(self) -> None:
        """Raise what ended the stay, if something did."""
        if not self.over:
            return
        if self.error is not None:
            raise self.error.with_traceback(None)
        raise NotJoined(f'the room "{self.room_id}" was left: join it again')

    async def _change(self, request: Request, what: str, change: dict[str, Any]) -> None:
        self.check()
        former = self.wanted
        # Wanted from now on: if the link is lost meanwhile, the return says it too.
        self.wanted = replace(former, **change)
        self._changing += 1
        try:
            with self.connection.deadline(what):
                while True:
                    link = await self._live()
                    try:
                        await link.ask(request)
                    except LinkLost:
                        continue
                    return
        except RequestTimedOut:
            raise
        except ReactorError:
            for name, value in change.items():
                if getattr(self.wanted, name) is value:
                    self.wanted = replace(self.wanted, **{name: getattr(former, name)})
            raise
        finally:
            self._changing -= 1

    async def _live(self) -> Link:
        while True:
            self.check()
            # A link that is lost says so before `lost` is called here.
            if self.link is not None and not self.link.lost:
                return self.link
            await self._changed.wait()

    # What the server says.

    def joined(self, link: Link, message: RoomJoined) -> None:
        """Take note that the room is joined on this link."""
        self.link = link
        self.socket_id = message.socket_id
        self.user_id = self.listing.user_id = message.user_id
        self.connection.pace(message.heartbeat_interval / 1000)
        self.took(self.listing.joined(message))
        me = self.listing.members.get(self.user_id)
        if me is not None and me.away and not self.wanted.away:
            # Who was away when its last socket dropped is still away, and here is a new one.
            link.post(Back(self.room_id))
        self.refresh_status()

    def took(self, events: list[RoomEvent]) -> None:
        """Tell what the listing made of what came."""
        me = self.listing.members.get(self.user_id)
        if me is not None and not self._changing:
            # Another device of this user may have changed it; a return must not change it back.
            self.wanted = replace(self.wanted, username=me.username, data=me.data)
        for event in events:
            self.feed.put(event)
        for event in events:
            self.callbacks.call(event.kind, event)
        self._look_after()

    def lost(self) -> None:
        """Take note that the link is gone."""
        self.link = None
        self.leaving = False
        self.listing.lose()
        self.refresh_status()

    def end(self, error: ReactorError | None) -> None:
        """End the stay; the first reason is the one that counts."""
        if self.over:
            return
        self.over, self.error, self.link = True, error, None
        self._on_over(self)
        self.feed.end()
        if isinstance(error, ForceLeave):
            self.callbacks.call("force-leave", error)
        self.refresh_status()

    def refresh_status(self) -> None:
        """Tell a change of the status."""
        status = self._status_now()
        if status is not self.status:
            self.status = status
            self.callbacks.call("status", status)
        self._changed.fire()

    def _status_now(self) -> Status:
        if self.over:
            return Status.CLOSED
        if self.link is None:
            return Status.CONNECTING if self.status is Status.CONNECTING else Status.RECONNECTING
        return Status.DEGRADED if self.link.degraded else Status.CONNECTED

    # Keeping the list right.

    def _look_after(self) -> None:
        if self.link is None:
            return
        if self.listing.incomplete and not self._healing:
            self._healing = True
            self._tasks.start_soon(self._heal)
        if self.listing.unsettled and not self._settling:
            self._settling = True
            self._tasks.start_soon(self._settle)

    async def _heal(self) -> None:
        while (link := self.link) is not None and self.listing.incomplete:
            try:
                with anyio.fail_after(self.connection.request_timeout):
                    (message,) = await link.ask(Members(self.room_id))
            except (LinkLost, ReactorError, TimeoutError):
                await anyio.sleep(random.uniform(0.0, _HEAL_AGAIN))  # noqa: S311 - chance, no secret
                continue
            if self.link is link and isinstance(message, MembersReply):
                self.took(self.listing.listed(message))
        self._healing = False

    async def _settle(self) -> None:
        await anyio.sleep(SETTLE)
        self._settling = False
        if not self.over:
            self.took(self.listing.settle())
