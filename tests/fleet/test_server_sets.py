"""The server sets do what the other tests of this folder rely on."""

import pytest

from tests.support import servers
from tests.support.cluster_set import ClusterSet, slot_of
from tests.support.sentinel_set import SentinelSet
from tests.support.server_sets import ServerSet
from tests.support.waiting import until_blocking

ROOM = "lobby"
KEY = "{reactor:7kf}:some"  # in the slot of the room


def test_a_set_is_complete_and_publishes_expired_events_on_every_server(fleet: ServerSet) -> None:
    assert fleet.is_whole()
    for server in fleet.servers:
        assert server.control.config_get("notify-keyspace-events") == {"notify-keyspace-events": "xE"}
    assert len(fleet.primaries()) == (3 if isinstance(fleet, ClusterSet) else 1)
    primary = fleet.primary_of(ROOM)
    assert primary in fleet.primaries()
    primary.control.set(KEY, 1)  # a cluster would refuse it elsewhere


def test_a_planned_failover_changes_the_primary_and_loses_nothing(fleet: ServerSet) -> None:
    old = fleet.primary_of(ROOM)
    old.control.set(KEY, "kept")
    old.control.wait(1, 1000)
    new = fleet.failover(ROOM)
    assert old is not new is fleet.primary_of(ROOM)
    assert old.alive
    assert new.control.get(KEY) == "kept"


@pytest.mark.slow
def test_a_dead_primary_is_replaced_and_its_unreplicated_writes_are_lost(fleet: ServerSet) -> None:
    primary = fleet.primary_of(ROOM)
    primary.control.set(KEY, "before")
    primary.control.wait(1, 1000)
    with fleet.unreplicated(primary):
        primary.control.set(KEY, "lost")
        dead = fleet.kill_primary(ROOM)
        assert dead is primary
        new = fleet.promoted(dead, ROOM)
    assert new.control.get(KEY) == "before"
    fleet.reset()
    until_blocking(
        lambda: fleet.is_whole() and dead.follows(fleet.primary_of(ROOM)),
        what="the killed server is a replica",
    )
    assert fleet.primary_of(ROOM).control.dbsize() == 0


@pytest.mark.slow
def test_a_restarted_server_becomes_a_replica(cluster: ClusterSet) -> None:
    dead = cluster.kill_primary(ROOM)
    new = cluster.promoted(dead, ROOM)
    cluster.restart(dead)
    assert dead.follows(new)


@pytest.mark.slow
def test_a_former_primary_returns_as_a_primary_until_the_sentinels_see_it(sentinels: SentinelSet) -> None:
    old = sentinels.primary
    old.control.set(KEY, "old")
    old.kill_saved()
    new = sentinels.promoted(old)
    new.control.set(KEY, "new")
    old.start()
    assert old.is_primary
    assert old.control.get(KEY) == "old"
    sentinels.wait_whole()
    assert sentinels.primary is new
    assert old.control.get(KEY) == "new"


@pytest.mark.parametrize("atomic", [False, True])
def test_a_slot_moves_with_its_keys(cluster: ClusterSet, atomic: bool) -> None:
    if atomic and not servers.moves_slots_at_once(cluster.kind):
        pytest.skip("only Valkey 9 and later move slots atomically")
    slot = slot_of(ROOM)
    source = cluster.owner_of(slot)
    for number in range(25):
        source.control.set(f"{KEY}{number}", number)
    to = cluster.another_primary(source)
    cluster.move_slot(slot, to, atomic=atomic)
    assert cluster.primary_of(ROOM) is to
    assert to.control.get(f"{KEY}24") == "24"
    assert source.control.dbsize() == 0
