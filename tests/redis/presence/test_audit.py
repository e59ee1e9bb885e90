"""The sweep's scripts, each on its own: sweep, and audit_room for large rooms."""

import pytest

from tests.redis.presence.cases import probing
from tests.redis.presence.probe import MAX_ROWS, Probe
from tests.support.keyspace import SHARDS, shard_of
from tests.support.servers import Server
from tests.support.stores import done


def audit(probe: Probe) -> list[str]:
    gone = []
    for shard in range(SHARDS):
        cursor = 0
        while True:
            page = done(probe.store.audit(shard, cursor))
            gone += page.gone
            for room in page.large_rooms:
                gone += audit_room(probe, shard, room)
            cursor = page.cursor
            if cursor == 0:
                break
    return gone


def audit_room(probe: Probe, shard: int, room: bytes) -> list[str]:
    gone, cursor = [], 0
    while True:
        page = done(probe.store.audit_room(shard, room, cursor))
        gone += page.gone
        cursor = page.cursor
        if cursor == 0:
            return gone


@pytest.mark.parametrize("how", ["deleted externally", "expired before its stored deadline", "expired"])
def test_the_audit_finds_members_without_a_presence_key(redis_server: Server, how: str) -> None:
    with probing(redis_server) as probe:
        for room in (f"room{number}" for number in range(200)):
            probe.join("ann", room=room)
            probe.join("bob", "n1.2", room=room)
        assert audit(probe) == []
        for room in ("room0", "room77", "room199"):
            if how == "deleted externally":
                probe.client.delete(probe.presence_key("bob", room))
            elif how == "expired":
                probe.expire("bob", room=room)
            else:
                probe.client.pexpire(probe.presence_key("bob", room), 2)
        probe.advance_clock()
        probe.received()
        assert sorted(audit(probe)) == ["room0:user:bob", "room199:user:bob", "room77:user:bob"]
        received = probe.received()
        assert received.changes == [], "the audit itself publishes nothing"
        assert len(received.expired) == (0 if how == "deleted externally" else 3)


def test_a_large_room_is_audited_in_pages(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join_many(f"u{number}" for number in range(MAX_ROWS + 1))
        assert done(probe.store.audit(shard_of("lobby"), 0)).large_rooms == [b"lobby"]
        for number in (0, 500, MAX_ROWS):
            probe.client.delete(probe.presence_key(f"u{number}"))
        assert sorted(audit(probe)) == ["lobby:user:u0", f"lobby:user:u{MAX_ROWS}", "lobby:user:u500"]


def test_one_audit_call_examines_a_limited_number_of_rows(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        rooms = [room for n in range(500) if shard_of(room := f"room{n}") == shard_of("lobby")][:8]
        for room in rooms:
            probe.join_many((f"u{number}" for number in range(400)), room=room)
        page = done(probe.store.audit(shard_of("lobby"), 0))
        assert page.cursor == 0, "a few rooms come in one page"
        looked_at = (len(rooms) - len(page.large_rooms)) * 400
        assert looked_at <= MAX_ROWS
