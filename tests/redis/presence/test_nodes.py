"""The scripts about nodes: fence_node, detach_node, shard_nodes; renew_lease, list_nodes, resign,
leadership."""

from typing import Any

import pytest

from reactor import __version__
from reactor.fleet.registry import NodeRecord
from reactor.presence.keys import escape
from tests.redis.presence.cases import Case, Step, check, each, probing
from tests.redis.presence.probe import AWAY_GRACE, GRACE, MAX_ROWS, Probe
from tests.redis.presence.steps import (
    detaches,
    expires,
    goes_away,
    is_fenced,
    is_lost,
    joins,
    loses_presence,
    passes,
)
from tests.support.keyspace import shard_of
from tests.support.servers import Server
from tests.support.stores import done


def loses(node: str, *, grace: int = GRACE, away_grace: int = AWAY_GRACE) -> Step:
    """A lost node is detached from the lobby."""

    def lose(probe: Probe) -> Any:
        reply = probe.on_shard("detach_node", "lobby", node, escape(probe.id("lobby")), grace, away_grace)
        probe.on_shard("fence_node", "lobby", node, 100)
        return reply

    return lose


DETACH_NODE = [
    Case("no member of it", [joins("ann", "n2.1"), is_fenced("n1")], loses("n1"), 0, [],
         ["ann n2.1 | ttl"]),
    Case("a member only on this node", [joins("ann"), joins("bob", "n2.1"), passes(5), is_fenced("n1")],
         loses("n1"), 0,
         [], ["ann | grace r=disconnected", "bob n2.1 | ttl-5s"]),
    Case("a member with two connections, both on it", [joins("ann"), joins("ann", "n1.2"), is_fenced("n1")],
         loses("n1"), 0, [], ["ann | grace x2 r=disconnected"]),
    Case("a member with other connections", [joins("ann"), joins("ann", "n2.1"), passes(5), is_fenced("n1")],
         loses("n1"), 0, ["2>3 (1) ~ann"], ["ann n2.1 | ttl-5s"]),
    Case("a member whose other connection is away",
         [joins("ann"), joins("ann", "n2.1", away=1), is_fenced("n1")], loses("n1"), 0, ["2>3 (1) ~ann"],
         ["ann n2.1:away | ttl away"]),
    Case("several members with other connections: one diff",
         [joins("ann"), joins("ann", "n2.1"), joins("bob"), joins("bob", "n2.2"), is_fenced("n1")],
         loses("n1"), 0,
         ["4>6 (2) ~ann ~bob"], ["ann n2.1 | ttl", "bob n2.2 | ttl"]),
    Case("an away member", [joins("ann"), goes_away("ann"), is_fenced("n1")], loses("n1"), 0, [],
         ["ann | away-grace away r=disconnected"]),
    Case("an away member on one of two", [joins("ann"), joins("ann", "n1.2"), goes_away("ann"),
                                                 is_fenced("n1")], loses("n1"), 0, [],
         ["ann | grace x2 r=disconnected"]),
    Case("no grace", [joins("ann"), joins("bob", "n2.1"), is_fenced("n1")], loses("n1", grace=0), 0,
         ["2>3 (1) -ann:disconnected"], ["bob n2.1 | ttl"], ["ann:disconnected"]),
    Case("a member in its grace already", [joins("ann"), detaches("ann"), passes(5), is_fenced("n1")],
         loses("n1"), 0,
         [], ["ann | grace-5s r=disconnected"]),
    Case("an expired member", [joins("ann"), expires("ann"), is_fenced("n1")], loses("n1"), 0,
         ["1>2 (0) -ann:inactivity_timeout"], [], ["ann:inactivity_timeout"]),
    Case("a member deleted externally", [joins("ann"), loses_presence("ann"), is_fenced("n1")], loses("n1"),
         0,
         ["1>2 (0) -ann:inactivity_timeout"], [], ["ann:inactivity_timeout"]),
    Case("twice", [joins("ann"), is_lost("n1"), passes(5)], loses("n1"), 0, [],
         ["ann | grace-5s r=disconnected"]),
    Case("a member that moved to another node meanwhile",
         [joins("ann"), is_fenced("n1"), joins("ann", "n2.1", replaces="n1.1")], loses("n1"), 0, [],
         ["ann n2.1 | ttl"]),
]  # fmt: skip

FENCED = [
    Case("its join is refused", [joins("bob", "n2.1"), is_lost("n1")], joins("ann"), ["fenced"], [],
         ["bob n2.1 | ttl"]),
    Case("its heartbeats renew no TTL", [joins("ann"), is_lost("n1"), passes(5)],
         lambda p: p.refresh("ann"),
         ["now", "0"], [], ["ann | grace-5s r=disconnected"]),
    Case("its detach changes nothing", [joins("ann"), is_lost("n1"), passes(5)],
         lambda p: p.detach("ann")[:1],
         ["grace"], [], ["ann | grace-5s r=disconnected"]),
    Case("its joins under a new name are accepted", [joins("ann"), is_lost("n1"), passes(5)],
         joins("ann", "n9.1", replaces="n1.1"), ["resumed", "now", "epoch", 1, 1, "now", ""], [],
         ["ann n9.1 | ttl"]),
]  # fmt: skip


@each(DETACH_NODE)
def test_detach_node(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(FENCED)
def test_a_node_that_was_judged_lost(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


def test_a_lost_node_is_detached_from_a_large_room_in_several_calls(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join_many(f"u{number}" for number in range(MAX_ROWS + 1))
        assert probe.on_shard("fence_node", "lobby", "n1", 100) == [b"lobby"]
        assert loses("n1")(probe) == 1
        graces = [probe.shadow(f"u{number}").get("r") for number in range(MAX_ROWS + 1)]
        assert graces.count("disconnected") == MAX_ROWS
        assert loses("n1")(probe) == 0
        assert probe.remaining(f"u{MAX_ROWS}") <= GRACE


def test_the_rooms_of_a_lost_node_are_returned_until_each_is_detached(redis_server: Server) -> None:
    """A node that continues after the first one crashed finds the rest."""
    with probing(redis_server) as probe:
        rooms = [room for n in range(2000) if shard_of(room := f"room{n}") == shard_of("lobby")][:20]
        for room in rooms:
            probe.join("ann", room=room)
            probe.join("bob", "n2.1", room=room)
        shard, left = shard_of("lobby"), set(rooms)
        assert sorted(done(probe.registry.nodes_of_shard(shard))) == ["n1", "n2"]
        while left:
            named = probe.on_shard("fence_node", "lobby", "n1", 3)
            assert len(named) == min(3, len(left))
            assert {name.decode() for name in named} <= left
            done(probe.store.detach_node(shard, "n1", named[0], grace=GRACE, away_grace=AWAY_GRACE))
            left.discard(named[0].decode())
            assert b"n1" in probe.on_shard("shard_nodes", "lobby")
        assert probe.on_shard("fence_node", "lobby", "n1", 3) == []
        assert probe.on_shard("shard_nodes", "lobby") == [b"n2"]


def test_a_lost_node_stays_listed_while_rooms_wait_although_its_members_leave(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        rooms = [room for n in range(200) if shard_of(room := f"room{n}") == shard_of("lobby")][:2]
        for room in rooms:
            probe.join("ann", room=room)
        probe.on_shard("fence_node", "lobby", "n1", 100)
        probe.ask("leave", "ann", "n1.1", room=rooms[0])
        assert probe.on_shard("shard_nodes", "lobby") == [b"n1"], (
            "otherwise the other room would be forgotten"
        )
        for room in rooms:
            done(
                probe.store.detach_node(
                    shard_of(room), "n1", room.encode(), grace=GRACE, away_grace=AWAY_GRACE
                )
            )
        assert probe.on_shard("fence_node", "lobby", "n1", 100) == []
        assert probe.on_shard("shard_nodes", "lobby") == []


def test_a_fence_expires(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        is_fenced("n1")(probe)
        assert 0 < probe.client.pttl(probe.key("fenced:n1")) <= 3_600_000
        assert probe.keys() == {probe.key("fenced:n1")}


# Registry and leadership.


def test_renewing_a_lease_returns_the_registry(redis_server: Server) -> None:
    probe = Probe(redis_server)
    assert done(probe.registry.nodes()) == {}
    one, other = NodeRecord(1, "life1", "-", "host:1"), NodeRecord(7, "life2", "run", "host two:é")
    first = done(probe.registry.renew("n1", one, lease_ms=5000, first=True))
    one = one._replace(formats="1-1/16", release=__version__)
    other = other._replace(formats="1-1/16", release=__version__)
    assert first == {"n1": one}
    second = done(probe.registry.renew("n2", other, lease_ms=5000, first=True))
    assert second == {"n1": one, "n2": other}
    assert 4000 < probe.client.pttl("{t:fleet}:lease:n1") <= 5000
    one = one._replace(counter=2, registered_in="run")
    third = done(probe.registry.renew("n1", one, lease_ms=9000, first=False))
    assert third == {"n1": one, "n2": other} == done(probe.registry.nodes())
    assert 8000 < probe.client.pttl("{t:fleet}:lease:n1") <= 9000
    probe.close()


def test_a_node_of_an_older_release_is_in_the_registry_too(redis_server: Server) -> None:
    probe = Probe(redis_server)
    probe.client.hset("{t:fleet}:registry", "n1", "7 host:1")
    assert done(probe.registry.nodes()) == {"n1": NodeRecord(7, "", "-", "host:1")}
    probe.close()


@pytest.mark.parametrize("how", ["resign", "flushall"])
def test_renewing_a_lease_without_registry_entry_fails_and_writes_nothing(
    redis_server: Server, how: str
) -> None:
    probe = Probe(redis_server)
    record = NodeRecord(1, "life", "-", "")
    done(probe.registry.renew("n1", record, lease_ms=5000, first=True))
    if how == "resign":
        done(probe.registry.deregister("n1"))
    else:
        probe.client.flushall()
    left = {"{t:fleet}:format"} if how == "resign" else set()
    assert probe.keys() == left
    assert done(probe.registry.renew("n1", record, lease_ms=5000, first=False)) is None
    assert probe.keys() == left
    done(probe.registry.deregister("n1"))
    probe.close()


def test_leadership_belongs_to_one_node_until_it_expires(redis_server: Server) -> None:
    probe = Probe(redis_server)
    registry = probe.registry
    for node in ("n1", "n2"):
        done(registry.renew(node, NodeRecord(1, "life", "-", ""), lease_ms=5000, first=True))
    assert done(registry.acquire_leadership("pacemaker", "n1", ttl_ms=60_000))
    assert not done(registry.acquire_leadership("pacemaker", "n2", ttl_ms=60_000))
    assert done(registry.acquire_leadership("sweep", "n2", ttl_ms=60_000)), "each job has a leader of its own"
    assert done(registry.acquire_leadership("pacemaker", "n1", ttl_ms=90_000))
    assert 60_000 < probe.client.pttl("{t:fleet}:turn:pacemaker") <= 90_000
    probe.pass_time(90_000)
    assert done(registry.acquire_leadership("pacemaker", "n2", ttl_ms=60_000))
    assert not done(registry.acquire_leadership("pacemaker", "n1", ttl_ms=60_000))
    probe.close()


def test_who_is_no_registered_node_leads_no_job(redis_server: Server) -> None:
    """A name that another program stored, without an end, and a dead node behind a step of the clock."""
    probe = Probe(redis_server)
    registry = probe.registry
    for node in ("n1", "n2"):
        done(registry.renew(node, NodeRecord(1, "life", "-", ""), lease_ms=5000, first=True))
    for value in (b"x", b"\xff"):
        probe.client.set("{t:fleet}:turn:sweep", value)
        assert done(registry.acquire_leadership("sweep", "n1", ttl_ms=60_000)), value
        assert not done(registry.acquire_leadership("sweep", "n2", ttl_ms=60_000)), value
        assert 0 < probe.client.pttl("{t:fleet}:turn:sweep") <= 60_000
    done(registry.deregister("n1"))
    assert done(registry.acquire_leadership("sweep", "n2", ttl_ms=60_000))
    probe.close()
