"""Whether a connection may log in, watch a room or ask about one, by the bans that this node knows.

Whose connection it is says its token. Without tokens it is, for as long as it is in rooms, that of the users
as whom it has joined; a connection that is in no room is no one's, and may watch.
"""

from collections.abc import Callable, Collection, Mapping

from reactor.gateway.connection import Connection
from reactor.presence.bans import Ban
from reactor.presence.known_bans import KnownBans
from reactor.protocol.messages import ErrorMessage, RefusedRoom, RequestId
from reactor.protocol.reasons import BANNED, leave_reason


def banned_error(
    ban: Ban, now: int, *, request_id: RequestId | None = None, room_id: str | None = None
) -> ErrorMessage:
    """Return the `error` for a user who is banned. now: Redis's time (ms)."""
    wait = max(1, ban.until - now) if ban.until else None
    return ErrorMessage("banned", sentence_of(ban), request_id, room_id, wait, ban.until or None)


def sentence_of(ban: Ban) -> str:
    """Return what the user is to read."""
    return ban.message or leave_reason(BANNED).message or ""


def users_of(connection: Connection) -> Collection[str]:
    """Return whose connection it is: the user of its token, or those as whom it is in rooms."""
    session = connection.session
    proved = session.proved_user
    return (proved,) if proved is not None else {one.user_id for one in session.rooms.values()}


class BanCheck:
    """Judges by the bans that the node knows. now: Redis's time (ms).

    Attributes:
        logins: Logins that were refused.
        watches: Watches and questions that were refused, and watches that were ended.

    """

    def __init__(self, bans: KnownBans, now: Callable[[], int]) -> None:
        self._bans, self._now = bans, now
        self.logins = self.watches = 0

    def refused_login(self, user_id: str, request_id: RequestId | None) -> ErrorMessage | None:
        """Return the error for the login of a user who is banned everywhere; None for any other."""
        ban = self._bans.find(user_id)
        if ban is None:
            return None
        self.logins += 1
        return banned_error(ban, self._now(), request_id=request_id)

    def ban_of(self, connection: Connection, room_id: str) -> Ban | None:
        """Return the ban that keeps a connection from watching a room, or None."""
        if not len(self._bans):
            return None
        users = users_of(connection)
        return next(filter(None, (self._bans.find(user_id, room_id) for user_id in users)), None)

    def refused_rooms(self, bans: Mapping[str, Ban]) -> list[RefusedRoom]:
        """Return the refusals of those rooms of a request from which its user is banned."""
        self.watches += len(bans)
        return [
            RefusedRoom(room_id, "banned", sentence_of(ban), ban.until or None)
            for room_id, ban in bans.items()
        ]

    def refuse(
        self, connection: Connection, ban: Ban, room_id: str, request_id: RequestId | None = None
    ) -> None:
        """Send the error: in reply to a request, or without its id where a watch is ended."""
        self.watches += 1
        connection.send(banned_error(ban, self._now(), request_id=request_id, room_id=room_id))
