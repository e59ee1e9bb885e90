"""A client's stays by room: who gets what the server says, and who is joined again on a new link."""

from collections.abc import Callable
from random import uniform

import anyio

from reactor.client.connection import Connection
from reactor.client.link import Link, LinkLost
from reactor.client.refusals import passes
from reactor.client.stay import Stay, Wanted
from reactor.errors import ForceLeave, ReactorError, Refused, RequestTimedOut
from reactor.protocol import messages as said
from reactor.protocol.requests import LeaveRoom

_AT_ONCE = 16
"""Rooms joined again side by side; the server holds back at most 32 requests of a connection."""

_AGAIN = 2.0  # seconds at most, by chance


class Stays:
    """The rooms that a client is in, or on its way into.

    Args:
        connection: What they are joined over.
        make: Begins a stay: make(room_id, user_id, wanted, on_over).

    """

    def __init__(
        self, connection: Connection, make: Callable[[str, str, Wanted, Callable[[Stay], None]], Stay]
    ) -> None:
        self._connection = connection
        self._make = make
        self._stays: dict[str, Stay] = {}

    def __len__(self) -> int:
        return len(self._stays)

    # What the user wants.

    async def enter(self, room_id: str, user_id: str, wanted: Wanted) -> Stay:
        """Join a room; return when that is answered. user_id: "" where a token says it. Raises as `join`."""
        while (stay := self._stays.get(room_id)) is not None and stay.leaving:
            await stay.ended()
        if stay is None:
            stay = self._stays[room_id] = self._make(room_id, user_id, wanted, self._forget)
        elif user_id not in ("", stay.user_id):
            sentence = f'this client is in the room as "{stay.user_id}": leave first, or use a second client'
            raise Refused(sentence, "already_joined")
        stay.joiners += 1
        try:
            await self._ask_in(stay, wanted)
        except BaseException as error:
            if stay.joiners == 1 and not stay.established:
                stay.end(None)
                if isinstance(error, RequestTimedOut) or not isinstance(error, ReactorError):
                    # The join may be taken yet; the server answers one thing after the other.
                    self._connection.post(LeaveRoom(room_id))
            raise
        finally:
            stay.joiners -= 1
        return stay

    async def leave_all(self) -> None:
        """Leave the rooms that are joined, as far as the server takes it."""
        async with anyio.create_task_group() as tasks:
            for stay in [stay for stay in self._stays.values() if stay.link is not None]:
                tasks.start_soon(_leave_quietly, stay)

    def end_all(self, error: ReactorError | None) -> None:
        """End every stay."""
        for stay in list(self._stays.values()):
            stay.end(error)

    async def _ask_in(self, stay: Stay, wanted: Wanted) -> None:
        while True:
            link = await self._connection.link()
            try:
                await link.ask(stay.join_request(wanted))
            except LinkLost:
                continue
            stay.check()
            stay.establish(wanted)
            return

    def _forget(self, stay: Stay) -> None:
        if self._stays.get(stay.room_id) is stay:
            del self._stays[stay.room_id]

    # What becomes of the link.

    async def return_all(self, link: Link) -> None:
        """Join every room again on a new link."""
        turns = anyio.Semaphore(_AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for stay in list(self._stays.values()):
                if stay.established:
                    tasks.start_soon(self._return, link, stay, turns)

    def lost(self) -> None:
        """Take note that the link is gone."""
        for stay in list(self._stays.values()):
            stay.lost()

    def refresh_status(self) -> None:
        """Have each room tell its status, if the connection's has changed it."""
        for stay in list(self._stays.values()):
            stay.refresh_status()

    async def _return(self, link: Link, stay: Stay, turns: anyio.Semaphore) -> None:
        while not stay.over:
            try:
                async with turns:
                    with anyio.fail_after(self._connection.request_timeout):
                        await link.ask(*stay.return_requests())
            except LinkLost:
                return
            except TimeoutError:
                continue
            except ReactorError as error:
                if not passes(error):
                    stay.end(error)
                    return
                await anyio.sleep(uniform(0.0, _AGAIN))  # noqa: S311 - chance, no secret
            else:
                return

    # What the server says.

    def take(self, link: Link, message: said.ServerMessage) -> None:
        """Give a message to the stay that it is for."""
        stay = self._stays.get(getattr(message, "room_id", None) or "")
        if stay is None:
            if isinstance(message, said.RoomJoined):
                # Nobody waits for it any more.
                link.post(LeaveRoom(message.room_id))
            return
        match message:
            case said.RoomJoined():
                stay.joined(link, message)
            case said.RoomDiff():
                stay.took(stay.listing.diff(message))
            case said.CountReply(id=None):
                stay.took(stay.listing.count_told(message))
            case said.MembersReply(id=None):
                stay.took(stay.listing.listed(message))
            case said.RoomMessage():
                stay.callbacks.call("message", message)
            case said.RoomForceLeave():
                stay.end(ForceLeave(message.message, message.room_id, message.reason, message.timestamp))
            case said.RoomLeft() if stay.leaving:
                stay.end(None)


async def _leave_quietly(stay: Stay) -> None:
    try:
        await stay.leave()
    except ReactorError:
        # Whom the server cannot take out now, its grace does.
        return
