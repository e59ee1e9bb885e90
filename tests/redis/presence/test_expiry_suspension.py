"""Suspension of expiry: after a time in which no node reached Redis, members look expired that are not."""

from typing import Any

import pytest

from reactor.presence.replies import Joined, JoinRefused
from reactor.protocol.messages import Member
from tests.redis.presence.cases import Case, check, each, probing
from tests.redis.presence.probe import GRACE, MAX_ROWS, Probe
from tests.redis.presence.steps import Step, detaches, expires, is_lost, joins, passes
from tests.support.keyspace import shard_of
from tests.support.servers import Server
from tests.support.stores import done

LEASE = 5_000


def marks_alive(probe: Probe) -> Any:
    """A node that has not noticed that anything changed marks_alive."""
    return probe.on_shard("mark_shard_alive", "lobby", LEASE, "another server", 0)[0]


def marks_alive_knowing(probe: Probe, *, all_there: bool = False) -> Any:
    """A node that knows this server marks_alive."""
    servers = f"another {run_id(probe)}"
    return probe.on_shard("mark_shard_alive", "lobby", LEASE, servers, int(all_there))[0]


def marks_alive_with_all_registered(probe: Probe) -> Any:
    return marks_alive_knowing(probe, all_there=True)


def run_id(probe: Probe) -> str:
    return str(probe.client.info("server")["run_id"])


def stalls(probe: Probe) -> None:
    """Redis hung for longer than a lease, and no node has marked the shard since."""
    probe.client.hincrby(probe.key("pulse"), "at", -(LEASE + 1))


def clock_goes_back(probe: Probe) -> None:
    """The clock of the Redis host was set back by an hour since the last mark."""
    for field in ("at", "hold"):
        if int(probe.client.hget(probe.key("pulse"), field) or 0):
            probe.client.hincrby(probe.key("pulse"), field, 3_600_000)


def fails_over(probe: Probe) -> None:
    """A replica was promoted, a moment after the last mark."""
    probe.client.hset(probe.key("pulse"), "servers", "another server")


def suspension_ends(probe: Probe) -> None:
    probe.client.hset(probe.key("pulse"), "hold", probe.now() - 1)


SUSPENDED: list[Step] = [marks_alive, joins("ann", username="A", data="1"), expires("ann"), stalls]
SUSPENDED_WITH_THREE: list[Step] = [
    marks_alive, joins("ann"), joins("ann", "n1.2"), joins("ann", "n2.1"), expires("ann"), stalls,
]  # fmt: skip
ANN_SUSPENDED = ["ann n1.1 | gone"]

CASES = [
    Case("a claim finds nothing", SUSPENDED, lambda p: p.claim("ann"), ["now"], [], ANN_SUSPENDED),
    Case("a claim finds nothing for a lease after the first mark", [*SUSPENDED, marks_alive],
         lambda p: p.claim("ann"), ["now"],
         [], ANN_SUSPENDED),
    Case("a claim finds nothing on a server that no mark names",
         [marks_alive, joins("ann"), fails_over, expires("ann")],
         lambda p: p.claim("ann"), ["now"], [], ANN_SUSPENDED),
    Case("nor for a lease after the first mark there", [marks_alive, joins("ann"), fails_over,
         expires("ann"), marks_alive],
         lambda p: p.claim("ann"), ["now"], [], ANN_SUSPENDED),
    Case("nor when only some nodes know the server",
         [marks_alive, joins("ann"), fails_over, expires("ann"), marks_alive_knowing, marks_alive],
         lambda p: p.claim("ann"), ["now"], [], ANN_SUSPENDED),
    Case("a claim counts there once all members are registered again",
         [marks_alive, joins("ann"), fails_over, expires("ann"), marks_alive,
         marks_alive_with_all_registered, marks_alive],
         lambda p: p.claim("ann")[1:2], ["lobby/ann"], ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("but not on a server that hung", [*SUSPENDED, marks_alive_with_all_registered],
         lambda p: p.claim("ann"), ["now"], [], ANN_SUSPENDED),
    Case("a slot may move between known servers",
         [marks_alive_knowing, joins("ann"), expires("ann"), marks_alive],
         lambda p: p.claim("ann")[1:2], ["lobby/ann"], ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("a claim counts again afterwards", [*SUSPENDED, marks_alive, passes(4), marks_alive,
         suspension_ends],
         lambda p: p.claim("ann")[1:3], ["lobby/ann", "inactivity_timeout"],
         ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("a claim finds nothing where the clock went back since the last mark, which may be long ago",
         [*SUSPENDED, clock_goes_back], lambda p: p.claim("ann"), ["now"], [], ANN_SUSPENDED),
    Case("nor where it went back while expiry was suspended", [*SUSPENDED, marks_alive, clock_goes_back,
         marks_alive],
         lambda p: p.claim("ann"), ["now"], [], ANN_SUSPENDED),
    Case("nor for a lease after the first mark then", [*SUSPENDED, clock_goes_back, marks_alive],
         lambda p: p.claim("ann"), ["now"], [], ANN_SUSPENDED),
    Case("a claim counts when the marks were in time", [marks_alive, joins("ann"), expires("ann")],
         lambda p: p.claim("ann")[1:3], ["lobby/ann", "inactivity_timeout"],
         ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("the list omits it and publishes nothing", SUSPENDED, lambda p: p.in_room("list", "lobby", 0, 10),
         ["now", "epoch", 1, 0, "0"], [], ANN_SUSPENDED),
    Case("the count omits it", SUSPENDED, lambda p: p.in_room("count"), ["now", "epoch", 1, 0], [],
         ANN_SUSPENDED),
    Case("it is not present", SUSPENDED, lambda p: p.ask("is_present", "ann"), 0, [], ANN_SUSPENDED),
    Case("it cannot be updated", SUSPENDED, lambda p: p.ask("update", "ann", "B", "", "", 0), ["absent"], [],
         ANN_SUSPENDED),
    Case("it cannot go away", SUSPENDED, lambda p: p.ask("set_away", "ann", "n1.1", 1), ["now", None], [],
         ANN_SUSPENDED),
    Case("its heartbeat is refused and creates no key", SUSPENDED, lambda p: p.refresh("ann"), ["now", "0"],
         [],
         ANN_SUSPENDED),
    Case("it may leave", SUSPENDED, lambda p: p.ask("leave", "ann", "n1.1"), ["left", "now"],
         ["1>2 (0) -ann:left"], [],
         ["ann:left"]),
    Case("it may be kicked", SUSPENDED, lambda p: p.ask("kick", "ann", ""), 1, ["1>2 (0) -ann:kicked"], [],
         ["ann:kicked"]),
    Case("its connection is lost: it departs as disconnected after the suspension", SUSPENDED,
         lambda p: p.detach("ann")[:1],
         ["grace"], [], ["ann | gone r=disconnected"]),
    Case("its connection is lost and the grace is 0", SUSPENDED, lambda p: p.detach("ann", grace=0),
         ["departed",
         "now"],
         ["1>2 (0) -ann:disconnected"], [], ["ann:disconnected"]),
    Case("one of its connections is lost: no key is created", SUSPENDED_WITH_THREE, lambda p: p.detach("ann",
         "n1.2"),
         ["kept", "now"],
         [], ["ann n1.1 n2.1 | gone"]),
    Case("it leaves with one of its connections: no key is created", SUSPENDED_WITH_THREE,
         lambda p: p.ask("leave", "ann", "n1.2"), ["kept", "now"], [], ["ann n1.1 n2.1 | gone"]),
    Case("one of its nodes is lost: no key is created", [*SUSPENDED_WITH_THREE, is_lost("n2")],
         lambda p: p.in_room("count"), ["now", "epoch", 3, 0], [], ["ann n1.1 n1.2 | gone"]),
    Case("it is registered again: published for nodes that listed the room meanwhile",
         SUSPENDED, lambda p: p.join("ann", username="A", data="1", epoch=p.epoch()),
         ["resumed", "now", "epoch", 2, 1, "now", "diff"], ["1>2 (1) ~ann"],
         ["ann n1.1 | ttl username=A data=1"]),
    Case("a client joins again: its new fields are published", SUSPENDED,
         joins("ann", "n2.1", data="2"), ["resumed", "now", "epoch", 2, 1, "now", "diff"], ["1>2 (1) ~ann"],
         ["ann n1.1 n2.1 | ttl x2 username=A data=2"]),
    Case("it returns from its grace", [marks_alive, joins("ann"), detaches("ann"), expires("ann"), stalls],
         lambda p: p.join("ann", "n2.1", epoch=p.epoch()), ["resumed", "now", "epoch", 2, 1, "now", "diff"],
         ["1>2 (1) ~ann"], ["ann n2.1 | ttl"]),
    Case("another user joins a room with a suspended member", SUSPENDED, joins("bob"),
         ["joined", "now", "epoch", 2, 2, "now", "diff"], ["1>2 (2) +bob"], [*ANN_SUSPENDED,
         "bob n1.1 | ttl"]),
]  # fmt: skip


@each(CASES)
def test_while_expiry_is_suspended(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


def test_marking_a_shard_alive_returns_until_when_expiry_is_suspended(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        assert marks_alive(probe) == 0, "an empty shard has no members to wait for"
        probe.join("ann")
        assert marks_alive(probe) == 0
        stalls(probe)
        before = probe.now()
        suspended_until = marks_alive(probe)
        assert before + LEASE <= suspended_until <= probe.now() + LEASE
        assert marks_alive(probe) == suspended_until, "the next mark does not prolong it"
        suspension_ends(probe)
        assert marks_alive(probe) == 0
        assert 0 < probe.client.pttl(probe.key("pulse")) <= 86_400_000


def test_the_first_mark_of_a_shard_with_members_suspends_expiry(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        before = probe.now()
        assert marks_alive(probe) >= before + LEASE


def test_a_scan_finds_suspended_members_again_when_the_suspension_ends(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        marks_alive(probe)
        probe.join("ann")
        probe.expire("ann")
        stalls(probe)
        suspended_until = marks_alive(probe)
        assert probe.due(retry=1)[1:] == [suspended_until, 0, [b"lobby:user:ann"]]
        probe.advance_clock()
        assert probe.due(retry=1)[2:] == [0, []], "not due again while it is suspended"


@pytest.mark.parametrize("others", [0, 1, MAX_ROWS])
def test_a_room_full_of_suspended_members_is_listed_in_one_call(redis_server: Server, others: int) -> None:
    with probing(redis_server) as probe:
        marks_alive(probe)
        suspended = [f"u{number}" for number in range(2 * MAX_ROWS)]
        alive = [f"v{number}" for number in range(others)]
        probe.join_many(suspended)
        probe.join_many(alive, ttl=90_000)
        probe.expire(*suspended)
        stalls(probe)
        assert probe.in_room("count")[3] == others
        listing = done(probe.store.members("lobby"))
        assert len(listing.members) == listing.position.count == others
        assert done(probe.store.rooms(shard_of("lobby"))) == ({"lobby": others} if others else {})
        probe.received()


def test_a_suspended_member_of_a_lost_node_will_depart_as_disconnected(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        marks_alive(probe)
        probe.join("ann")
        probe.expire("ann")
        stalls(probe)
        probe.received()
        done(probe.store.fence_node(shard_of("lobby"), "n1"))
        done(probe.store.detach_node(shard_of("lobby"), "n1", b"lobby", grace=GRACE, away_grace=GRACE))
        done(probe.store.fence_node(shard_of("lobby"), "n1"))
        assert probe.received().changes == []
        assert probe.shadow("ann")["r"] == "disconnected"


# After Redis went back to an older state.


def test_a_mark_shows_whether_the_rooms_are_of_a_server_that_no_mark_named(redis_server: Server) -> None:
    with probing(redis_server) as probe:

        def restored(*, all_there: bool = False) -> bool:
            shard, servers = shard_of("lobby"), run_id(probe)
            mark = probe.store.mark_shard_alive(shard, lease=LEASE, servers=servers, all_there=all_there)
            return done(mark).restored

        assert not restored(), "there are no rooms"
        probe.join("ann")
        assert not restored(), "the server is known"
        fails_over(probe)
        assert restored()
        assert restored(), "not all nodes have registered their members yet"
        assert restored(all_there=True)
        assert not restored()


def test_a_room_begins_one_new_epoch_for_each_life_of_the_server(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        assert not done(probe.store.renew_epoch("lobby", "run 1")), "the room is empty"
        assert probe.keys() == set()
        probe.join("ann")
        first = probe.epoch()
        assert done(probe.store.renew_epoch("lobby", "run 1"))
        second = probe.epoch()
        assert second != first
        assert not done(probe.store.renew_epoch("lobby", "run 1"))
        assert probe.epoch() == second
        probe.received()
        probe.join("bob")
        ((_, row),) = probe.received().diffs
        assert (row.epoch, row.from_version > 0) == (second, True), "it continues no known version"
        assert done(probe.store.renew_epoch("lobby", "run 2"))
        assert probe.epoch() != second


LATER = 1 << 45


def test_a_departure_is_repeated_only_for_the_membership_that_ended(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        entry = probe.entry("ann")
        assert not done(
            probe.store.repeat_departure(entry, joined_at=joined_at - 1, reason="left", left_at=LATER)
        )
        assert not done(
            probe.store.repeat_departure(
                probe.entry("bob"), joined_at=joined_at, reason="left", left_at=LATER
            )
        )
        probe.received()
        assert done(probe.store.repeat_departure(entry, joined_at=joined_at, reason="left", left_at=LATER))
        assert probe.received().changes == ["1>2 (0) -ann:left"]
        (recorded,) = probe.departures()
        assert (recorded["reason"], int(recorded["leftAt"])) == ("left", LATER), (
            "the record says when it left"
        )
        assert not done(
            probe.store.repeat_departure(entry, joined_at=joined_at, reason="left", left_at=LATER)
        )
        assert probe.received().changes == []


def test_a_departure_is_not_repeated_for_a_member_that_was_active_since(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        left_at = joined_at - 1
        entry = probe.entry("ann")
        assert not done(
            probe.store.repeat_departure(entry, joined_at=joined_at, reason="left", left_at=left_at)
        )
        assert probe.received().changes[1:] == []


def test_the_departure_of_a_lost_member_is_recorded_once(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        ann = Member("ann", "Ann", joined_at, joined_at)
        assert done(probe.store.record_lost_member("lobby", ann, "disconnected")) is None, "ann is a member"
        gone = Member("ann", "Ann", joined_at - 1, joined_at - 1)
        assert done(probe.store.record_lost_member("lobby", gone, "disconnected")) == "disconnected"
        assert done(probe.store.record_lost_member("lobby", gone, "kicked")) == "disconnected"
        probe.ask("leave", "ann", "n1.1")
        assert done(probe.store.record_lost_member("lobby", ann, "disconnected")) == "left", (
            "it is recorded already"
        )
        assert [one["reason"] for one in probe.departures()] == ["disconnected", "left"]


def test_a_leave_is_recorded_although_redis_lost_the_member_before(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        epoch, ann = probe.epoch(), Member("ann", "Ann", joined_at, joined_at)
        probe.client.flushall()

        def leave(known_epoch: str = epoch) -> str:
            return done(probe.store.leave(probe.entry("ann"), "n1.1", known=ann, known_epoch=known_epoch))

        probe.join("bob")
        assert leave(probe.epoch()) == "absent"
        assert probe.departures() == [], "in this epoch it departed, which is recorded or was trimmed"
        assert leave() == leave() == "absent"
        assert [one["reason"] for one in probe.departures()] == ["left"]


def test_a_member_with_a_recorded_departure_is_not_registered_again_in_another_epoch(
    redis_server: Server,
) -> None:
    """The registering node has missed the departure, because its connection was down."""
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        probe.join("bob")
        probe.ask("leave", "ann", "n1.1")
        again = done(
            probe.store.join(
                probe.entry("ann"), "n1.1", ttl=60_000, known_epoch="a former one", joined_at=joined_at
            )
        )
        assert again == JoinRefused("departed")
        other = done(
            probe.store.join(
                probe.entry("ann"), "n1.1", ttl=60_000, known_epoch="a former one", joined_at=joined_at + 1
            )
        )
        assert isinstance(other, Joined)


def test_a_member_lost_by_redis_keeps_its_joined_at_after_joining_by_another_connection(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        probe.client.flushall()
        probe.advance_clock()
        probe.join("ann", "n2.1")  # the other connection's node was faster
        again = done(
            probe.store.join(probe.entry("ann"), "n1.1", ttl=60_000, known_epoch="*", joined_at=joined_at)
        )
        assert isinstance(again, Joined)
        assert again.joined_at == joined_at == int(probe.shadow("ann")["j"])
        assert probe.received().changes[-1] == "1>2 (1) ~ann"


@pytest.mark.parametrize("later", [False, True])
def test_registering_again_never_restores_a_membership_with_a_recorded_departure(
    redis_server: Server, *, later: bool
) -> None:
    with probing(redis_server) as probe:
        _, first, *_ = probe.join("ann")
        probe.ask("leave", "ann", "n1.1")
        probe.advance_clock()
        _, second, *_ = probe.join("ann", "n2.1")
        since = second + 5 if later else first
        again = done(
            probe.store.join(probe.entry("ann"), "n1.1", ttl=60_000, known_epoch="*", joined_at=since)
        )
        assert isinstance(again, Joined)
        assert again.joined_at == (since if later else second)
