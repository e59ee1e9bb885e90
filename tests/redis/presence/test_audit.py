"""The sweep's scripts, each on its own: sweep, and audit_room for large rooms."""

import pytest

from reactor.presence.keys import SHARDS, shard_of
from tests.redis.presence.cases import probing
from tests.redis.presence.probe import BATCH, Probe
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
                gone += audit_room(probe, room)
            cursor = page.cursor
            if cursor == 0:
                break
    return gone


def audit_room(probe: Probe, room: str) -> list[str]:
    gone, cursor = [], 0
    while True:
        page = done(probe.store.audit_room(room, cursor))
        gone += page.gone
        cursor = page.cursor
        if cursor == 0:
            return gone


@pytest.mark.parametrize("how", ["deleted by hand", "lapsed before its noted deadline", "lapsed"])
def test_the_audit_finds_whoever_is_not_alive(redis_server: Server, how: str) -> None:
    with probing(redis_server) as probe:
        for room in (f"room{number}" for number in range(200)):
            probe.join("ann", room=room)
            probe.join("bob", "n1.2", room=room)
        assert audit(probe) == []
        for room in ("room0", "room77", "room199"):
            if how == "deleted by hand":
                probe.client.delete(probe.presence_key("bob", room))
            elif how == "lapsed":
                probe.lapse("bob", room=room)
            else:
                probe.client.pexpire(probe.presence_key("bob", room), 2)
        probe.sleep()
        probe.hear()
        assert sorted(audit(probe)) == ["room0:user:bob", "room199:user:bob", "room77:user:bob"]
        heard = probe.hear()
        assert heard.told == [], "it tells nothing by itself"
        assert len(heard.expired) == (0 if how == "deleted by hand" else 3)


def test_a_large_room_is_audited_by_pages(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join_many(f"u{number}" for number in range(BATCH + 1))
        assert done(probe.store.audit(shard_of("lobby"), 0)).large_rooms == ["lobby"]
        for number in (0, 500, BATCH):
            probe.client.delete(probe.presence_key(f"u{number}"))
        assert sorted(audit(probe)) == ["lobby:user:u0", f"lobby:user:u{BATCH}", "lobby:user:u500"]


def test_one_call_of_the_audit_never_goes_through_all_of_a_full_shard(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        rooms = [room for n in range(500) if shard_of(room := f"room{n}") == shard_of("lobby")][:8]
        for room in rooms:
            probe.join_many((f"u{number}" for number in range(400)), room=room)
        page = done(probe.store.audit(shard_of("lobby"), 0))
        assert page.cursor == 0, "a few rooms come in one page"
        looked_at = (len(rooms) - len(page.large_rooms)) * 400
        assert looked_at <= BATCH
