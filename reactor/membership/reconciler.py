"""Keeps this node's sockets and Redis of one mind about who is here.

A socket's membership stands in three places: its session, the roster, and Redis. Redis decides that one
has ended; the socket decides that one goes on. Where Redis lost a living one (its data, or this node's
good name), it is entered again.
"""

from asyncio import gather
from collections.abc import Callable, Iterator

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.fleet.lease import Lease
from reactor.gateway.connection import Connection
from reactor.gateway.fanout import Fanout
from reactor.gateway.roster import Roster
from reactor.membership.dropping import RETRY_AFTER, Dropping
from reactor.membership.entering import Entering
from reactor.presence.attachment import Attachment
from reactor.presence.heartbeats import Beat
from reactor.presence.room_feed import RoomFeed
from reactor.presence.rows import LeftRow
from reactor.presence.store import Joined, Store
from reactor.protocol.membership import MembershipState
from reactor.protocol.messages import Member
from reactor.protocol.reasons import leave_reason
from reactor.settings import RoomPolicy
from reactor.tasks import Spawner

log = structlog.get_logger()

DIFF_COMES_WITHIN = 1.0
"""Seconds after which the diff of a departure is taken for lost."""


class Reconciler:
    """Sees that what Redis lost is entered again, and takes out of the sockets what has ended there."""

    def __init__(
        self, policy: Callable[[str], RoomPolicy], store: Store, entering: Entering, lease: Lease,
        feed: RoomFeed, roster: Roster[Connection], fanout: Fanout, tasks: Spawner,
    ) -> None:  # fmt: skip
        self._policy, self._entering, self._lease = policy, entering, lease
        self._feed, self._roster, self._fanout, self._tasks = feed, roster, fanout, tasks
        self._attached: set[Attachment] = set()
        self.dropping = Dropping(policy, store, tasks, held=self._attached.__contains__)
        self._waiting: dict[Attachment, list[Beat]] = {}
        self._ending: dict[Attachment, anyio.Event] = {}

    @property
    def attached(self) -> set[Attachment]:
        """The memberships of this node's sockets that Redis has, or should have."""
        return self._attached

    def now(self) -> int:
        """Redis's time (ms), guessed."""
        return self._lease.now()

    def attach(self, attachment: Attachment) -> None:
        """From now on the membership is kept in Redis, whatever happens there."""
        self._attached.add(attachment)

    def detach(self, attachment: Attachment) -> None:
        """The socket holds the membership no more."""
        attachment.live = False
        self._attached.discard(attachment)
        _end(self._waiting.pop(attachment, []))
        if (ended := self._ending.pop(attachment, None)) is not None:
            ended.set()

    # Redis says that a member has ended.

    def on_left(self, room_id: str, left: LeftRow, member: Member | None) -> None:
        """Act on a departure of the room before the others hear of it. member: as it was, where known."""
        self._part_from_leaving(room_id, left.user_id)
        attachments = self.attachments_of(room_id, left.user_id)
        if not attachments:
            return
        if leave_reason(left.reason).expels:
            later = self._entered_after(room_id, left.user_id, member)
            self.expel(room_id, left.user_id, left.reason, at=left.at, message=left.message)
            for attachment in later:
                self.dropping.start(attachment)
        else:
            # Its socket is here and open, so it was not gone: this node was thought dead, or was cut off.
            for attachment in attachments:
                attachment.last_seen = member
                self.revive(attachment, None)

    def _entered_after(self, room_id: str, user_id: str, member: Member | None) -> list[Attachment]:
        """Those that were entered again meanwhile, into a later joining; not those whose clients do so."""
        return [
            attachment
            for connection, attachment in self._sockets_of(room_id, user_id)
            if member is not None
            and attachment.joined_at > member.joined_at
            and connection.session.rooms[room_id].state is not MembershipState.REJOINING
        ]

    def _part_from_leaving(self, room_id: str, user_id: str) -> None:
        """Who is on its way out hears nothing of its own departure; the answer to it is still to come."""
        for connection, attachment in self._sockets_of(room_id, user_id):
            if not attachment.live:
                self._roster.remove(room_id, connection)

    def expel(self, room_id: str, user_id: str, reason: str, *, at: int, message: str = "") -> None:
        """Tell a member's sockets that they are out of the room; close those that are in no other. at: ms."""
        for attachment in self.attachments_of(room_id, user_id):
            self.detach(attachment)
            self._feed.release(room_id)
        text = message or leave_reason(reason).message or self._policy(room_id).message
        for connection in self._fanout.force_leave(room_id, user_id, text, reason, at):
            # What Redis may yet take of it, or is yet to detach, must not meet its next joining.
            self._entering.name(connection)

    def should_be_there(self, room_id: str, user_id: str) -> bool:
        """Whether a socket here holds the member, and neither leaves nor was seen to have departed."""
        held = self.attachments_of(room_id, user_id)
        return any(attachment.live and attachment not in self._ending for attachment in held)

    def attachments_of(self, room_id: str, user_id: str) -> list[Attachment]:
        """A member's memberships on this node."""
        return [attachment for _, attachment in self._sockets_of(room_id, user_id)]

    def _sockets_of(self, room_id: str, user_id: str) -> Iterator[tuple[Connection, Attachment]]:
        for connection in self._roster.connections_of(room_id, user_id):
            membership = connection.session.rooms.get(room_id)
            if membership is not None and membership.attachment is not None:
                yield connection, membership.attachment

    # A socket is here, and Redis does not know it.

    def revive(self, attachment: Attachment, beat: Beat | None) -> None:
        """Enter a membership again that Redis should have and does not.

        The heartbeat that found out waits for it.
        """
        waiting = self._waiting.get(attachment)
        if waiting is None:
            self._waiting[attachment] = [beat] if beat is not None else []
            self._tasks.start_soon(self._revive, attachment)
        elif beat is not None:
            waiting.append(beat)

    async def _revive(self, attachment: Attachment) -> None:
        try:
            reply = await self._entering.enter_again(attachment)
        except Unavailable:
            await anyio.sleep(RETRY_AFTER)
            beats = self._waiting.pop(attachment, [])
            if attachment.live:
                self.revive(attachment, None)
                self._waiting[attachment] += beats
            else:
                _end(beats)
                if attachment.unanswered and attachment not in self._attached:
                    self.dropping.start(attachment)  # it was put out meanwhile, and Redis may yet take it
            return
        except BaseException:
            _end(self._waiting.pop(attachment, []))
            raise
        beats = self._waiting.pop(attachment, [])
        if isinstance(reply, Joined) and attachment.live:
            for beat in beats:
                beat.taken(reply.now)
            return
        if isinstance(reply, Joined):
            # Its socket dropped meanwhile, and what detached it came before this.
            self.dropping.start(attachment)
        else:
            await self._expel_departed(attachment, reply)
        _end(beats)

    async def enter_all_again(self) -> None:
        """Enter every membership of this node again; return when all are in, however long Redis takes."""
        waiting = list(self._attached)
        while waiting:
            results = await gather(*map(self._entering.enter_again, waiting), return_exceptions=True)
            failed = []
            for attachment, result in zip(waiting, results, strict=True):
                if isinstance(result, str):
                    self._tasks.start_soon(self._expel_departed, attachment, result)
                elif isinstance(result, Unavailable) and attachment.live:
                    failed.append(attachment)
                elif isinstance(result, BaseException) and attachment.live:
                    self.revive(attachment, None)
                elif not attachment.live:
                    self.dropping.start(attachment)
            if waiting := failed:
                await anyio.sleep(RETRY_AFTER)

    async def _expel_departed(self, attachment: Attachment, reason: str) -> None:
        """The member departed; its diff tells the socket, and where that got lost, we do."""
        if not attachment.live:
            return
        ended = self._ending[attachment] = anyio.Event()
        with anyio.move_on_after(DIFF_COMES_WITHIN):
            await ended.wait()
        self._ending.pop(attachment, None)
        if attachment.live:
            self.expel(*attachment.entry, reason, at=self._lease.now())


def _end(beats: list[Beat]) -> None:
    for beat in beats:
        beat.ended()
