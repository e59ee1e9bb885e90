"""Keeps the connections of this node and the members in Redis consistent.

A membership is recorded in three places: the session of its connection, the roster, and Redis. Redis decides
that one has ended; an open connection decides that one goes on. So a departure in Redis expels the
connections, and a connection that Redis lost, with its data or because this node was judged lost, is
registered again. The states of a connection's membership are in `presence/attachment.py`.
"""

from asyncio import gather
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import anyio
import structlog
from msgspec import UNSET, json

from reactor.errors import Unavailable
from reactor.fleet.lease import Lease
from reactor.gateway.connection import Connection
from reactor.gateway.fanout import Fanout
from reactor.gateway.roster import Roster
from reactor.membership.detach_queue import RETRY_AFTER, DetachQueue
from reactor.presence.attachment import Attachment, AttachmentEvent, AttachmentState
from reactor.presence.bans import Ban
from reactor.presence.departures import Departures
from reactor.presence.heartbeats import Beat
from reactor.presence.keys import Entry
from reactor.presence.people_index import Joining, PeopleIndex
from reactor.presence.replies import Joined, JoinRefused
from reactor.presence.room_feed import Payer, RoomFeed
from reactor.presence.rows import LeftRow, decode_diff
from reactor.presence.store import Store
from reactor.protocol.data import json_of
from reactor.protocol.intents import FormerJoining, Join
from reactor.protocol.membership import MembershipState
from reactor.protocol.messages import Member
from reactor.protocol.reasons import BANNED, DISCONNECTED, leave_reason
from reactor.protocol.room import RoomView
from reactor.settings import RoomPolicy
from reactor.tasks import Spawner

log = structlog.get_logger()

DIFF_COMES_WITHIN = 1.0
"""Seconds after which the diff of a departure is taken for lost."""

ANY_EPOCH = "*"


class Reconciler:
    """Registers connections in Redis, expels those whose member departed, and detaches those that are gone.

    policy: a room's present settings. people: the index of people, None where it is off.
    """

    def __init__(
        self, policy: Callable[[str], RoomPolicy], store: Store, departures: Departures, lease: Lease,
        feed: RoomFeed, roster: Roster[Connection], fanout: Fanout, tasks: Spawner, *, max_per_user: int = 0,
        people: PeopleIndex | None = None,
    ) -> None:  # fmt: skip
        self._people = people
        self._max_per_user = max_per_user
        self._policy, self._store, self._departures, self._lease = policy, store, departures, lease
        self._feed, self._roster, self._fanout, self._tasks = feed, roster, fanout, tasks
        self._attachments: set[Attachment] = set()  # those that are `in_room`
        self._waiting_beats: dict[Attachment, list[Beat]] = {}
        self._numbers = count(1)
        self.detach_queue = DetachQueue(policy, store, tasks)

    def now(self) -> int:
        """Return Redis's time (ms), estimated."""
        return self._lease.now()

    # Connections that join, and that are gone.

    def assign_id(self, connection: Connection) -> None:
        """Give a connection an id (NODE.NUMBER) that no earlier request to Redis has used."""
        connection.socket_id = f"{self._lease.name}.{next(self._numbers):x}"

    async def follow_and_register(
        self, connection: Connection, attachment: Attachment, join: Join, payer: Payer, *,
        followed: Callable[[RoomView], Awaitable[None]] | None,
    ) -> tuple[Joined | JoinRefused, RoomView]:  # fmt: skip
        """Follow the room and send a client's join to Redis; return its reply, and a view that includes it.

        payer: of the list of the room, where it is the first on this node. followed: is awaited before
        the join is sent. When this raises, the room is not followed. Raises Unavailable.
        """
        view = await self._feed.follow(join.room_id, payer)
        first: Joined | None = None
        try:
            if followed is not None:
                await followed(view)
            # Again where the node took another name meanwhile: what it did under the former one is void.
            while first is None or not (
                connection.session.closed or attachment.connection.startswith(self._lease.name)
            ):
                reply = await self._register(
                    attachment, username=join.username, data=join.data_json or b"", former=join.former
                )
                if isinstance(reply, JoinRefused):
                    return reply, view
                view = await self._feed.wait_for_version(join.room_id, reply.epoch, reply.version)
                first = first or reply
        except BaseException:
            self._feed.unfollow(join.room_id)
            raise
        return first, view

    def attach(self, attachment: Attachment, *, away: bool) -> None:
        """Note that Redis took a client's join: from here on it is made to have the connection."""
        attachment.joined(away=away)
        if away and self._people:
            self._people.verify(attachment.entry)
        self._attachments.add(attachment)
        if attachment.state is AttachmentState.LIVE:
            for beat in self._waiting_beats.pop(attachment, ()):
                beat.acknowledged(self.now())

    def note_away(self, entry: Entry, diff: bytes) -> None:
        """Note in the index of people whether a member is away, as a published diff says."""
        if diff and self._people:
            self._people.set_away(entry, away=any(row.away for row in decode_diff(diff).updated))

    def detach(self, attachment: Attachment, event: AttachmentEvent) -> None:
        """Note that the connection is no longer in the room, by that event, and answer its heartbeats."""
        attachment.advance(event)
        self._attachments.discard(attachment)
        self._end_beats(attachment)

    def abort_join(self, connection: Connection, attachment: Attachment) -> None:
        """Make sure that a failed join, which Redis may have taken or take yet, leaves no member there.

        The connection gets another id, so that this does not affect its next attempt. A connection that was
        in the room already stays there.
        """
        if attachment.in_room:
            return
        if attachment.state is AttachmentState.NEW:
            attachment.advance(AttachmentEvent.REFUSED)
        else:
            self.detach_queue.add(attachment)
        self.assign_id(connection)

    # A member departed in Redis.

    def on_left(self, room_id: str, left: LeftRow, member: Member | None) -> None:
        """Act on a departure before the room is notified of it. member: as it was, where known."""
        connections = self._remaining_connections(room_id, left.user_id)
        if not connections:
            return
        if leave_reason(left.reason).expels:
            # Those registered again since then are in a later membership, and are detached from it. A client
            # that joins again has begun that membership itself.
            later = [
                attachment
                for connection, attachment in connections
                if member is not None
                and attachment.joined_at > member.joined_at
                and connection.session.rooms[room_id].state is not MembershipState.REJOINING
            ]
            self.expel(
                room_id, left.user_id, left.reason, at=left.at, message=left.message, until=left.ends_at
            )
            for attachment in later:
                self.detach_queue.add(attachment)
        else:
            # They are open, so they were not lost: this node was judged lost, or could not reach Redis.
            for _, attachment in connections:
                attachment.note_last_seen(member)
                self.reregister(attachment)

    def expel(
        self, room_id: str, user_id: str, reason: str, *, at: int, message: str = "", until: int = 0
    ) -> None:
        """Take a member's connections out of the room, and close those that are in no other.

        at: ms. until: when a ban ends (ms), or 0.
        """
        connections = self._remaining_connections(room_id, user_id)
        for _, attachment in connections:
            attachment.advance(AttachmentEvent.EXPELLED)
            self._attachments.discard(attachment)
            self._feed.unfollow(room_id)
        notice = self.notice_of(room_id, reason, message)
        self._fanout.force_leave(room_id, user_id, notice, reason, at, until or None)
        for connection, attachment in connections:
            # What Redis may yet take of it, or is yet to detach, must not affect its next join.
            self.assign_id(connection)
            self._end_beats(attachment)

    def notice_of(self, room_id: str, reason: str, message: str = "") -> str:
        """Return the sentence for a user whose membership ended. message: that of a kick, if it had one."""
        return message or leave_reason(reason).message or self._policy(room_id).message

    def present_attachments(self) -> list[Attachment]:
        """Return the connections that Redis should have, in every room."""
        return [attachment for attachment in self._attachments if attachment.state is AttachmentState.LIVE]

    def restore_evicted(self, entry: Entry) -> None:
        """Register a member again that Redis lacks, if a heartbeat was acknowledged within its TTL."""
        for attachment in self.attachments_of(*entry):
            if attachment.acknowledged_at + attachment.terms.ttl > self.now():
                self.reregister(attachment)

    def should_be_present(self, room_id: str, user_id: str) -> bool:
        """Whether Redis should have the member, as far as this node's connections show."""
        there = {AttachmentState.LIVE, AttachmentState.REREGISTERING}
        return any(attachment.state in there for attachment in self.attachments_of(room_id, user_id))

    def attachments_of(self, room_id: str, user_id: str) -> list[Attachment]:
        """Return a member's connections on this node that are in the room."""
        return [attachment for _, attachment in self._connections_of(room_id, user_id)]

    def _remaining_connections(self, room_id: str, user_id: str) -> list[tuple[Connection, Attachment]]:
        """Return a member's connections, after those whose leave is on its way were taken out of the roster.

        The reply to the leave is all that those need.
        """
        remaining = []
        for connection, attachment in self._connections_of(room_id, user_id):
            if attachment.state is AttachmentState.LEAVING:
                self._roster.remove(room_id, connection)
            else:
                remaining.append((connection, attachment))
        return remaining

    def _connections_of(self, room_id: str, user_id: str) -> list[tuple[Connection, Attachment]]:
        found = []
        for connection in self._roster.connections_of(room_id, user_id):
            membership = connection.session.rooms.get(room_id)
            if membership is not None:  # None where the socket was closed while a leave is on its way
                found.append((connection, membership.attachment))
        return found

    # Redis does not know a connection that is in the room.

    def reregister(self, attachment: Attachment, beat: Beat | None = None) -> None:
        """Register a connection again that Redis should have and does not have.

        beat: a heartbeat that Redis refused; it is answered when the outcome is known.
        """
        if not attachment.live:
            if beat is not None:
                beat.ended()
            return
        if beat is not None:
            self._waiting_beats.setdefault(attachment, []).append(beat)
        if attachment.state is AttachmentState.LIVE:
            attachment.advance(AttachmentEvent.MISSING)
            self._tasks.start_soon(self._reregister_until_answered, attachment)

    def resume_after_leave(self, attachment: Attachment) -> None:
        """Note that a leave got no answer: the client stays in the room, and Redis may have removed it."""
        attachment.advance(AttachmentEvent.LEAVE_UNANSWERED)
        self._tasks.start_soon(self._reregister_until_answered, attachment)

    async def reregister_all(self) -> None:
        """Register all connections of this node again; return when Redis has them, however long it takes."""
        waiting = list(self._attachments)
        while waiting:
            results = await gather(*map(self._reregister, waiting), return_exceptions=True)
            failed = []
            for attachment, result in zip(waiting, results, strict=True):
                if isinstance(result, Unavailable) and attachment.live:
                    failed.append(attachment)
                elif isinstance(result, BaseException) and attachment.live:
                    self.reregister(attachment)
                elif isinstance(result, Joined | BaseException):
                    self._detach_if_not_wanted(attachment)
                else:
                    self._tasks.start_soon(self._expel_departed, attachment, result)
            if waiting := failed:
                await anyio.sleep(RETRY_AFTER)

    async def _reregister_until_answered(self, attachment: Attachment) -> None:
        while attachment.state is AttachmentState.REREGISTERING:
            try:
                reply = await self._reregister(attachment)
            except Unavailable:
                await anyio.sleep(RETRY_AFTER)
                if attachment.may_be_taken_late:  # it was expelled meanwhile
                    self.detach_queue.add(attachment)
            except BaseException:
                if attachment.state is AttachmentState.REREGISTERING:
                    attachment.advance(AttachmentEvent.REREGISTRATION_FAILED)
                self._end_beats(attachment)
                raise
            else:
                if isinstance(reply, Joined):
                    self._on_reregistered(attachment, reply)
                else:
                    await self._expel_departed(attachment, reply)
                return

    def _on_reregistered(self, attachment: Attachment, reply: Joined) -> None:
        if attachment.state in {AttachmentState.LIVE, AttachmentState.REREGISTERING}:
            attachment.advance(AttachmentEvent.REREGISTERED)
            for beat in self._waiting_beats.pop(attachment, ()):
                beat.acknowledged(reply.now)
        else:
            self._detach_if_not_wanted(attachment)

    def _detach_if_not_wanted(self, attachment: Attachment) -> None:
        """Detach a connection that Redis took after it had ended."""
        if attachment.state not in {AttachmentState.LIVE, AttachmentState.REREGISTERING}:
            self.detach_queue.add(attachment)

    async def _expel_departed(self, attachment: Attachment, left: LeftRow) -> None:
        """Expel the connections of a member that departed, unless the diff of its departure does so first."""
        if not attachment.live:
            return
        attachment.advance(AttachmentEvent.FOUND_DEPARTED)
        await anyio.sleep(DIFF_COMES_WITHIN)
        if attachment.state is AttachmentState.DEPARTED:
            self.expel(*attachment.entry, left.reason, at=left.at, message=left.message, until=left.ends_at)

    def _end_beats(self, attachment: Attachment) -> None:
        for beat in self._waiting_beats.pop(attachment, ()):
            beat.ended()

    # What is sent to Redis.

    async def _reregister(self, attachment: Attachment) -> Joined | LeftRow:
        """Register a connection again; return the departure of its member where that may not be.

        A member that Redis does not have has departed where its departure is on record. Otherwise its join
        was lost, as a failover can do. A member on record as disconnected whose connection is open was cut
        off and did not depart. A user who is banned is not registered. Raises Unavailable.
        """
        view = self._feed.view(attachment.entry.room_id)
        known_epoch = view.epoch if view is not None else ""
        reply = await self._register_as_known(attachment, known_epoch or ANY_EPOCH)
        if isinstance(reply, JoinRefused) and reply.ban is None:
            reason = await self._reason_on_record(attachment)
            if reason is not None and reason != DISCONNECTED:
                return LeftRow(attachment.entry.user_id, reason, self.now(), "")
            reply = await self._register_as_known(attachment, ANY_EPOCH)
        if isinstance(reply, JoinRefused) and reply.ban is not None:
            return await self._end_by_ban(attachment, reply.ban, reply.now)
        # In any epoch Redis otherwise refuses only a connection that was detached meanwhile.
        if isinstance(reply, Joined):
            return reply
        return LeftRow(attachment.entry.user_id, DISCONNECTED, self.now(), "")

    async def _end_by_ban(self, attachment: Attachment, ban: Ban, now: int) -> LeftRow:
        """Record the departure of a member that Redis lost and that is banned now; return it."""
        room_id, user_id = attachment.entry
        member = self._feed.last_known(*attachment.entry) or attachment.last_seen
        reason = None
        if member is not None:
            reason = await self._store.record_lost_member(room_id, member, BANNED)
        if reason in {BANNED, None}:
            return LeftRow(user_id, BANNED, now, ban.message, ban.until)
        return LeftRow(user_id, reason or BANNED, now, "")

    async def _reason_on_record(self, attachment: Attachment) -> str | None:
        room_id, user_id = attachment.entry
        membership = user_id, attachment.joined_at
        return (await self._departures.reasons(room_id, [membership])).get(membership)

    async def _register_as_known(self, attachment: Attachment, known_epoch: str) -> Joined | JoinRefused:
        member = self._feed.last_known(*attachment.entry) or attachment.last_seen
        if member is None:
            return await self._register(attachment, known_epoch=known_epoch)
        data = b"" if member.data is UNSET else json.encode(member.data, enc_hook=json_of)
        return await self._register(
            attachment,
            username=member.username,
            data=data,
            joined_at=member.joined_at,
            known_epoch=known_epoch,
        )

    async def _register(
        self,
        attachment: Attachment,
        *,
        username: str = "",
        data: bytes = b"",
        known_epoch: str = "",
        joined_at: int | None = None,
        former: FormerJoining | None = None,
    ) -> Joined | JoinRefused:
        while True:
            previous, current = attachment.connection, self._current_id(attachment)
            # Before the index of people is waited for: a connection lost meanwhile is fenced in Redis.
            attachment.submitted(current)
            try:
                joining = None
                if self._people is not None:
                    joining = await self._people.enter(attachment.entry, self._lease.name)
            except Unavailable:
                attachment.answered(None)  # nothing was sent
                raise
            reply = await self._join(
                attachment.entry,
                current,
                ttl=attachment.terms.ttl,
                username=username,
                data=data,
                max_members=attachment.terms.max_members if not known_epoch else 0,
                max_connections=self._max_per_user if not known_epoch else 0,
                known_epoch=known_epoch,
                replaces=previous if previous != current else "",
                away=attachment.away,
                joined_at=joined_at,
                former=former,
                joining=joining,
            )
            if isinstance(reply, Joined):
                attachment.answered(reply.joined_at)
                attachment.acknowledged(reply.now)
                self._feed.offer(attachment.entry.room_id, reply.diff)
                return reply
            attachment.answered(None)
            if reply.reason != "fenced":
                return reply
            await self._lease.abandon_name(current.partition(".")[0])

    async def _join(
        self, entry: Entry, connection: str, *, joining: Joining | None, **terms: Any
    ) -> Joined | JoinRefused:
        """Send a join, and pass its outcome on to the index of people."""
        if joining is None or self._people is None:
            return await self._store.join(entry, connection, **terms)
        try:
            reply = await self._store.join(entry, connection, person=joining.token, **terms)
        except BaseException:
            self._people.unanswered(joining)
            raise
        if isinstance(reply, Joined):
            self._people.joined(joining, away=terms["away"])
        else:
            self._people.refused(joining)
        return reply

    def _current_id(self, attachment: Attachment) -> str:
        return f"{self._lease.name}.{attachment.connection.partition('.')[2]}"
