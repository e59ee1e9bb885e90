"""Enters memberships of this node's sockets into Redis, under this node's present name."""

from itertools import count

from msgspec import UNSET, json

from reactor.fleet.lease import Lease
from reactor.gateway.connection import Connection
from reactor.presence.attachment import Attachment
from reactor.presence.departures import Departures
from reactor.presence.room_feed import RoomFeed
from reactor.presence.store import Joined, NotJoined, Store
from reactor.protocol.reasons import DISCONNECTED

ANY_EPOCH = "*"


class Entering:
    """Puts memberships into Redis: a client's for the first time, and again what Redis has lost."""

    def __init__(self, store: Store, departures: Departures, lease: Lease, feed: RoomFeed) -> None:
        self._store, self._departures, self._lease, self._feed = store, departures, lease, feed
        self._numbers = count(1)

    def name(self, connection: Connection) -> None:
        """Give a socket an id that Redis knows nothing of, nor has yet to take: the node's and a number."""
        connection.socket_id = f"{self._lease.name}.{next(self._numbers):x}"

    async def enter(
        self, attachment: Attachment, *, username: str = "", data: bytes = b""
    ) -> Joined | NotJoined:
        """Put a client's membership into Redis, under this node's present name. Raises Unavailable."""
        return await self._enter(attachment, username=username, data=data)

    async def enter_again(self, attachment: Attachment) -> Joined | str:
        """Put a membership into Redis that was there; or why it is not to be there. Raises Unavailable.

        Where Redis is still in the epoch that this node knows, it has departed, if it is on record; else its
        joining was lost, as a failover can do. Who was put out as disconnected while the socket is here was
        only cut off.
        """
        view = self._feed.view(attachment.entry.room_id)
        reply = await self._enter_known(attachment, view.epoch if view is not None else "")
        if isinstance(reply, NotJoined):
            reason = await self._reason_on_record(attachment)
            if reason is not None and reason != DISCONNECTED:
                return reason
            reply = await self._enter_known(attachment, "")
        # In whatever epoch it comes in, unless it was let go of meanwhile.
        return reply if isinstance(reply, Joined) else DISCONNECTED

    async def _reason_on_record(self, attachment: Attachment) -> str | None:
        room_id, user_id = attachment.entry
        joining = user_id, attachment.joined_at
        return (await self._departures.reasons(room_id, [joining])).get(joining)

    async def _enter_known(self, attachment: Attachment, known_epoch: str) -> Joined | NotJoined:
        """Enter a membership as it was last known; in whatever epoch when none is given."""
        known_epoch = known_epoch or ANY_EPOCH
        member = self._feed.last_known(*attachment.entry) or attachment.last_seen
        if member is None:
            return await self._enter(attachment, known_epoch=known_epoch)
        data = b"" if member.data is UNSET else json.encode(member.data)
        return await self._enter(
            attachment,
            username=member.username,
            data=data,
            joined_at=member.joined_at,
            known_epoch=known_epoch,
        )

    async def _enter(
        self,
        attachment: Attachment,
        *,
        username: str = "",
        data: bytes = b"",
        known_epoch: str = "",
        joined_at: int | None = None,
    ) -> Joined | NotJoined:
        while True:
            former, present = attachment.connection, self._present_name(attachment)
            attachment.connection = present
            attachment.unanswered += 1
            reply = await self._store.join(
                attachment.entry,
                present,
                ttl=attachment.terms.ttl,
                username=username,
                data=data,
                max_members=attachment.terms.max_members if not known_epoch else 0,
                known_epoch=known_epoch,
                replaces=former if former != present else "",
                away=attachment.away,
                joined_at=joined_at,
            )
            attachment.unanswered -= 1
            if isinstance(reply, Joined):
                attachment.joined_at, attachment.last_seen = reply.joined_at, None
                self._feed.offer(attachment.entry.room_id, reply.diff)
                return reply
            if reply.why != "fenced":
                return reply
            await self._lease.abandon_name(present.partition(".")[0])

    def is_current(self, attachment: Attachment) -> bool:
        """Whether Redis knows the connection under this node's present name."""
        return attachment.connection == self._present_name(attachment)

    def _present_name(self, attachment: Attachment) -> str:
        return f"{self._lease.name}.{attachment.connection.partition('.')[2]}"
