"""Removes a user from this node: from the rooms in which the user has a connection here, then all sockets.

Another node, a back end or the admin API asks for it on the fleet's channel
(`lua/fleet/disconnect_user.lua`), or has banned the user. A connection that is in rooms is closed as soon as
the last of them has ended, so that its client first learns why. A connection in no room belongs to the user
whom its token proved; without tokens, to no one.
"""

from collections.abc import Callable, Collection

import msgspec
import structlog

from reactor.errors import UNREADABLE, Unavailable
from reactor.gateway.connection import Connection
from reactor.gateway.roster import Roster
from reactor.membership.ban_check import banned_error, users_of
from reactor.membership.observers import Observers
from reactor.membership.reconciler import Reconciler
from reactor.presence.bans import Ban
from reactor.presence.keys import Entry
from reactor.presence.known_bans import KnownBans
from reactor.presence.store import Store, each
from reactor.protocol.closing import CloseCode
from reactor.protocol.reasons import BANNED, KICKED
from reactor.tasks import Spawner

log = structlog.get_logger()


class RemovalRequest(msgspec.Struct, frozen=True, array_like=True):
    """Whom to remove, with a message for the user."""

    user_id: str
    message: str


_decode = msgspec.json.Decoder(RemovalRequest).decode


class UserRemoval:
    """Carries out requests to remove a user, and bans. connections_of: those whose token proved the user."""

    def __init__(
        self, store: Store, roster: Roster[Connection], reconciler: Reconciler, observers: Observers,
        bans: KnownBans, connections_of: Callable[[str], Collection[Connection]], tasks: Spawner,
    ) -> None:  # fmt: skip
        self._store, self._roster, self._reconciler = store, roster, reconciler
        self._observers, self._bans = observers, bans
        self._connections_of, self._tasks = connections_of, tasks

    async def remove(self, payload: bytes) -> None:
        """Carry out a request as it was published."""
        try:
            request = _decode(payload)
            user_id = request.user_id
            rooms = self._rooms_of(user_id)
            for connection in [one for one in self._connections_of(user_id) if not one.session.rooms]:
                connection.close(CloseCode.FORCE_LEAVE, KICKED)
            await each(rooms, lambda room_id: self._store.kick(Entry(room_id, user_id), request.message))
        except (Unavailable, *UNREADABLE) as error:
            log.warning("user_not_disconnected", reason=str(error))

    def on_banned(self, ban: Ban) -> None:
        """Act on a ban: end the user's watches of the room, or begin to end all that the user has here."""
        # Before anything else is read from Redis: without tokens a connection is the user's as a member only.
        if ban.room_id is not None:
            for observers in list(self._roster.observers(ban.room_id).values()):
                for connection in [one for one in observers if ban.user_id in users_of(one)]:
                    self._observers.end_by_ban(connection, ban.room_id, ban)
            return
        rooms = self._rooms_of(ban.user_id)
        members = [one for room_id in rooms for one in self._roster.connections_of(room_id, ban.user_id)]
        connections = list(dict.fromkeys((*self._connections_of(ban.user_id), *members)))
        if connections:
            self._tasks.start_soon(self._end_all, ban, rooms, connections)

    async def _end_all(self, ban: Ban, rooms: list[str], connections: list[Connection]) -> None:
        log.info("user_banned", connections=len(connections), rooms=len(rooms), until=ban.until)
        for connection in connections:
            if not connection.session.rooms:
                self._close(connection, ban)
        try:
            await each(rooms, lambda room_id: self._end_membership(room_id, ban))
        except Unavailable as error:  # who made the ban, or the sweep, completes it in Redis
            log.warning("user_not_disconnected", reason=str(error))
        if self._bans.find(ban.user_id) is None:
            return  # it was lifted meanwhile
        for room_id in rooms:  # where no diff has done so yet
            self._reconciler.expel(
                room_id, ban.user_id, BANNED, at=ban.at, message=ban.message, until=ban.until
            )
        for connection in connections:
            if connection.session.proved_user == ban.user_id or not connection.session.rooms:
                self._close(connection, ban)

    async def _end_membership(self, room_id: str, ban: Ban) -> None:
        entry = Entry(room_id, ban.user_id)
        await self._store.kick(entry, ban.message, reason=BANNED, ends_at=ban.until)

    def _rooms_of(self, user_id: str) -> list[str]:
        return [room_id for room_id in self._roster if self._roster.connections_of(room_id, user_id)]

    def _close(self, connection: Connection, ban: Ban) -> None:
        connection.send(banned_error(ban, self._reconciler.now()))
        connection.close(CloseCode.FORCE_LEAVE, BANNED)
