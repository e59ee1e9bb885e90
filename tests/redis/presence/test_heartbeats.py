"""Heartbeats in batches: many cost one call, none is acknowledged early,
and those of closed sockets do not count."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from reactor.backend import clients
from reactor.errors import Unavailable
from reactor.presence.attachment import Attachment, AttachmentEvent
from reactor.presence.heartbeats import MAX_MEMBERS, MAX_WAITING, Heartbeats
from reactor.settings import RoomPolicy
from tests.redis.presence.probe import GRACE, TTL, Probe
from tests.support.keyspace import keyspace, shard_of
from tests.support.servers import Server
from tests.support.stores import Connected, connected
from tests.support.waiting import until

TERMS = RoomPolicy(ttl=TTL, grace=GRACE, away_grace=GRACE, close_grace=50, message="", max_members=0)


class Acks:
    """The outcome of each heartbeat, in order."""

    def __init__(self) -> None:
        self.taken_at: list[int] = []
        self.refusals: list[Attachment] = []
        self.ends = self.too_many = self.absorbed = 0
        self.absorbs = True

    def acknowledged(self, now: int) -> None:
        self.taken_at.append(now)

    def refused(self, attachment: Attachment) -> None:
        self.refusals.append(attachment)

    def ended(self) -> None:
        self.ends += 1

    def absorb(self, _other: Any) -> bool:
        self.absorbed += self.absorbs
        return self.absorbs

    def overflowed(self) -> None:
        self.too_many += 1


class Beating:
    """A node's heartbeats, and members of a room."""

    def __init__(self, redis: Connected, probe: Probe) -> None:
        self.redis, self.probe = redis, probe
        self.heartbeats = Heartbeats(redis.store, lambda: "n1")
        self.acks = Acks()
        self.sent = self.failed = 0  # batches
        self._refresh = redis.store.refresh
        redis.store.refresh = self._count  # type: ignore[method-assign,assignment]

    async def one_more_fails(self) -> None:
        """Return when Redis has not answered a further batch."""
        before = self.failed
        await until(lambda: self.failed > before)

    async def _count(self, *args: Any) -> tuple[int, bytes]:
        self.sent += 1
        try:
            return await self._refresh(*args)
        except Unavailable:
            self.failed += 1
            raise

    def member(self, user: str, connection: str = "n1.1", room: str = "lobby") -> Attachment:
        self.probe.join(user, connection, room=room)
        entry = self.probe.entry(user, room)
        attachment = Attachment(entry, connection, TERMS, *keyspace().place_of(entry))
        attachment.submitted(connection)
        attachment.advance(AttachmentEvent.JOINED)
        return attachment

    def beat(self, *attachments: Attachment) -> None:
        for attachment in attachments:
            self.heartbeats.add(attachment, self.acks)

    async def acknowledged(self, number: int) -> None:
        await until(lambda: len(self.acks.taken_at) >= number)
        assert len(self.acks.taken_at) == number


@asynccontextmanager
async def beating(server: Server) -> AsyncIterator[Beating]:
    probe = Probe(server)
    try:
        async with connected(server) as redis:
            it = Beating(redis, probe)
            redis.tasks.start_soon(it.heartbeats.serve)
            yield it
    finally:
        probe.close()


async def test_an_acknowledgement_carries_the_time_at_which_redis_applied_it(redis_server: Server) -> None:
    async with beating(redis_server) as it:
        ann = it.member("ann")
        before = it.probe.now()
        it.beat(ann)
        await it.acknowledged(1)
        (at,) = it.acks.taken_at
        assert before <= at <= it.probe.now()
        assert it.probe.presence("ann")["lastActiveAt"] == str(at)


async def test_heartbeats_that_arrive_while_a_batch_is_sent_form_one_batch(redis_server: Server) -> None:
    async with beating(redis_server) as it:
        members = [it.member(f"u{number}") for number in range(100)]
        it.beat(members[0])
        await it.acknowledged(1)
        assert (it.heartbeats.batches, it.heartbeats.members) == (1, 1)
        for _ in range(3):  # three tabs each
            it.beat(*members)
        await it.acknowledged(301)
        assert (it.heartbeats.batches, it.heartbeats.members) == (2, 101)


async def test_each_of_many_tabs_waits_with_its_heartbeat_while_redis_is_away(redis_server: Server) -> None:
    async with beating(redis_server) as it:
        tabs = [it.member("ann", f"n1.{number}") for number in range(3 * MAX_WAITING)]
        redis_server.kill()
        it.beat(*tabs)
        await it.one_more_fails()
        assert it.acks.too_many == 0
        redis_server.start()
        await until(lambda: len(it.acks.refusals) == len(tabs))


@pytest.mark.parametrize("absorbs", [True, False])
async def test_a_limited_number_of_heartbeats_a_connection_waits_while_redis_is_away(
    bundled_server: Server, absorbs: bool
) -> None:
    async with beating(bundled_server) as it:
        it.acks.absorbs = absorbs
        ann, bob = it.member("ann"), it.member("bob")
        bundled_server.kill()
        for _ in range(MAX_WAITING + 5):
            it.beat(ann, bob)
            await anyio.lowlevel.checkpoint()
        assert (it.acks.absorbed, it.acks.too_many) == ((10, 0) if absorbs else (0, 10))
        bundled_server.start()
        await until(lambda: len(it.acks.refusals) == 2 * MAX_WAITING)


async def test_a_batch_is_no_longer_than_redis_should_be_busy_with_it(redis_server: Server) -> None:
    async with beating(redis_server) as it:
        members = [it.member(f"u{number}") for number in range(2 * MAX_MEMBERS + 1)]
        it.beat(*members)
        await it.acknowledged(len(members))
        assert it.heartbeats.batches == 3


async def test_rooms_of_all_shards_are_beaten_for(redis_server: Server) -> None:
    async with beating(redis_server) as it:
        rooms = [f"room{number}" for number in range(100)]
        it.beat(*(it.member("ann", room=room) for room in rooms))
        await it.acknowledged(100)
        assert it.heartbeats.batches == len({shard_of(room) for room in rooms}) == 16


async def test_a_member_that_redis_does_not_know_is_refused_and_not_made_anew(redis_server: Server) -> None:
    async with beating(redis_server) as it:
        ann, bob = it.member("ann"), it.member("bob")
        it.probe.expire("ann")
        it.beat(ann, bob)
        await it.acknowledged(1)
        assert it.acks.refusals == [ann]
        assert it.probe.presence("ann") == {}


async def test_a_node_that_was_judged_lost_has_all_refused(redis_server: Server) -> None:
    async with beating(redis_server) as it:
        members = [it.member("ann"), it.member("bob")]
        it.probe.on_shard("fence_node", "lobby", "n1", 100)
        it.beat(*members)
        await until(lambda: it.acks.refusals == members)
        assert it.acks.taken_at == []


async def test_nothing_is_acknowledged_before_redis_took_it(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 1.0)
    async with beating(redis_server) as it:
        ann, bob = it.member("ann"), it.member("bob")
        redis_server.pause()
        try:
            it.beat(ann, ann)
            await until(lambda: it.redis.health == [False])
            it.beat(bob, ann)
            await it.one_more_fails()
            assert (it.acks.taken_at, it.acks.refusals) == ([], [])
        finally:
            redis_server.resume()
        await it.acknowledged(4)
        assert it.probe.remaining("ann") > TTL - 5_000


async def test_what_waited_while_redis_was_away_counts_when_it_is_back_and_in_one_batch(
    redis_server: Server,
) -> None:
    async with beating(redis_server) as it:
        members = [it.member(f"u{number}") for number in range(10)]
        redis_server.kill()
        for _ in range(3):
            it.beat(*members)
            await it.one_more_fails()  # each would have been a batch
        redis_server.start()
        await until(lambda: len(it.acks.refusals) == 30)  # it came back empty
        assert it.heartbeats.batches == 1
        assert it.acks.taken_at == []
        for number in range(10):
            it.probe.join(f"u{number}")
        it.beat(*members)
        await it.acknowledged(10)


async def test_a_heartbeat_of_a_closed_socket_is_not_sent_to_redis(redis_server: Server) -> None:
    async with beating(redis_server) as it:
        ann, bob = it.member("ann"), it.member("bob")
        it.probe.pass_time(20_000)
        it.beat(ann, bob)
        ann.advance(AttachmentEvent.SOCKET_CLOSED)
        await it.acknowledged(1)
        assert it.acks.ends == 1
        assert it.probe.remaining("ann") <= TTL - 20_000
        assert it.probe.remaining("bob") > TTL - 20_000


async def test_a_heartbeat_queued_before_the_detach_does_not_extend_the_grace(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat is queued while Redis is away, and its socket closes before Redis is back."""
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 1.0)
    async with beating(redis_server) as it:
        ann = it.member("ann")
        redis_server.pause()
        try:
            it.redis.tasks.start_soon(_ignore, it.redis.store.count("lobby"))  # the queue waits for this
            await asyncio.sleep(0)
            await until(lambda: it.redis.health == [False])
            it.beat(ann)
            await until(lambda: it.sent == 1)
            ann.advance(AttachmentEvent.SOCKET_CLOSED)
        finally:
            redis_server.resume()
        await it.redis.store.detach(ann.entry, ann.connection, grace=GRACE, away_grace=GRACE)
        await until(lambda: it.acks.ends + len(it.acks.taken_at) == 1)
        assert it.probe.remaining("ann") <= GRACE


async def test_a_detach_never_overtakes_a_heartbeat_that_is_being_sent(redis_server: Server) -> None:
    async with beating(redis_server) as it:
        for number in range(50):
            ann = it.member("ann", f"n1.{number}")
            it.beat(ann)
            for _ in range(number % 4):
                await asyncio.sleep(0)
            ann.advance(AttachmentEvent.SOCKET_CLOSED)
            await it.redis.store.detach(ann.entry, ann.connection, grace=GRACE, away_grace=GRACE)
            await until(lambda: it.acks.ends + len(it.acks.taken_at) == 1)
            assert it.probe.remaining("ann") <= GRACE
            it.acks.ends, it.acks.taken_at = 0, []


async def test_one_open_socket_renews_a_member_whose_other_sockets_closed(redis_server: Server) -> None:
    async with beating(redis_server) as it:
        dead, living = it.member("ann", "n1.1"), it.member("ann", "n1.2")
        it.probe.pass_time(20_000)
        it.beat(dead, living)
        dead.advance(AttachmentEvent.SOCKET_CLOSED)
        await it.acknowledged(2)
        assert it.probe.remaining("ann") > TTL - 20_000


async def _ignore(call: Any) -> None:
    await asyncio.gather(call, return_exceptions=True)


async def test_a_heartbeat_of_a_left_room_is_answered_once_although_redis_does_not_answer(
    redis_server: Server,
) -> None:
    async with beating(redis_server) as it:
        ann, bob = it.member("ann"), it.member("bob")
        refresh, asked = it.heartbeats._store.refresh, 0

        async def away(*args: Any) -> tuple[int, bytes]:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise Unavailable("it does not answer")
            return await refresh(*args)

        it.heartbeats._store.refresh = away  # type: ignore[method-assign,assignment]
        ann.advance(AttachmentEvent.SOCKET_CLOSED)
        it.beat(ann, bob)
        await it.acknowledged(1)
        assert it.acks.ends == 1
