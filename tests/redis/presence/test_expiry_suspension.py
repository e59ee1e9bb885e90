"""Ends by time that do not count: after a time in which no node could speak up, everybody only looks gone."""

from typing import Any

import pytest

from reactor.presence.keys import shard_of
from reactor.presence.store import Joined, JoinRefused
from reactor.protocol.messages import Member
from tests.redis.presence.cases import Case, check, each, probing
from tests.redis.presence.probe import BATCH, GRACE, Probe
from tests.redis.presence.steps import Step, detaches, is_lost, joins, lapses, passes
from tests.support.servers import Server
from tests.support.stores import done

LEASE = 5_000


def pulses(probe: Probe) -> Any:
    """A node that has not noticed that anything changed pulses."""
    return probe.on_shard("mark_shard_alive", "lobby", LEASE, "another server", 0)


def pulses_knowing(probe: Probe, *, all_there: bool = False) -> Any:
    """A node that knows this server pulses."""
    servers = f"another {run_id(probe)}"
    return probe.on_shard("mark_shard_alive", "lobby", LEASE, servers, int(all_there))


def all_are_there(probe: Probe) -> Any:
    return pulses_knowing(probe, all_there=True)


def run_id(probe: Probe) -> str:
    return str(probe.client.info("server")["run_id"])


def stalls(probe: Probe) -> None:
    """Redis stood still for longer than a lease, and nobody has pulsed since."""
    probe.client.hincrby(probe.key("pulse"), "at", -(LEASE + 1))


def moves(probe: Probe) -> None:
    """A replica took over, a moment after the last pulse."""
    probe.client.hset(probe.key("pulse"), "servers", "another server")


def hold_ends(probe: Probe) -> None:
    probe.client.hset(probe.key("pulse"), "hold", probe.now() - 1)


HELD: list[Step] = [pulses, joins("ann", username="A", data="1"), lapses("ann"), stalls]
HELD_WITH_THREE: list[Step] = [
    pulses, joins("ann"), joins("ann", "n1.2"), joins("ann", "n2.1"), lapses("ann"), stalls,
]  # fmt: skip
ANN_HELD = ["ann n1.1 | gone"]

CASES = [
    Case("a claim finds nothing", HELD, lambda p: p.claim("ann"), ["now"], [], ANN_HELD),
    Case("a claim finds nothing for a lease after the first pulse", [*HELD, pulses],
         lambda p: p.claim("ann"), ["now"],
         [], ANN_HELD),
    Case("a claim finds nothing on a server that was not pulsed before",
         [pulses, joins("ann"), moves, lapses("ann")],
         lambda p: p.claim("ann"), ["now"], [], ANN_HELD),
    Case("nor for a lease after the first pulse there", [pulses, joins("ann"), moves, lapses("ann"), pulses],
         lambda p: p.claim("ann"), ["now"], [], ANN_HELD),
    Case("nor does it help that one node knows the server",
         [pulses, joins("ann"), moves, lapses("ann"), pulses_knowing, pulses],
         lambda p: p.claim("ann"), ["now"], [], ANN_HELD),
    Case("a claim counts there when all have entered again",
         [pulses, joins("ann"), moves, lapses("ann"), pulses, all_are_there, pulses],
         lambda p: p.claim("ann")[1:2], ["lobby/ann"], ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("but not on a server that stood still", [*HELD, all_are_there],
         lambda p: p.claim("ann"), ["now"], [], ANN_HELD),
    Case("a slot may move between servers that are known",
         [pulses_knowing, joins("ann"), lapses("ann"), pulses],
         lambda p: p.claim("ann")[1:2], ["lobby/ann"], ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("a claim counts again after that", [*HELD, pulses, passes(4), pulses, hold_ends],
         lambda p: p.claim("ann")[1:3], ["lobby/ann", "inactivity_timeout"],
         ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("a claim counts where the pulse was never late", [pulses, joins("ann"), lapses("ann")],
         lambda p: p.claim("ann")[1:3], ["lobby/ann", "inactivity_timeout"],
         ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("the list leaves it out, and tells nothing", HELD, lambda p: p.in_room("list", "lobby", 0, 10),
         ["now", "epoch", 1, 0, "0"], [], ANN_HELD),
    Case("the count leaves it out", HELD, lambda p: p.in_room("count"), ["now", "epoch", 1, 0], [], ANN_HELD),
    Case("it is not present", HELD, lambda p: p.ask("is_present", "ann"), 0, [], ANN_HELD),
    Case("it cannot be updated", HELD, lambda p: p.ask("update", "ann", "B", ""), ["absent"], [], ANN_HELD),
    Case("it cannot go away", HELD, lambda p: p.ask("set_away", "ann", "n1.1", 1), ["absent"], [], ANN_HELD),
    Case("its heartbeat is told so, and makes no key", HELD, lambda p: p.refresh("ann"), ["now", "0"], [],
         ANN_HELD),
    Case("it may leave", HELD, lambda p: p.ask("leave", "ann", "n1.1"), ["left", "now"],
         ["1>2 (0) -ann:left"], [],
         ["ann:left"]),
    Case("it may be kicked", HELD, lambda p: p.ask("kick", "ann", ""), 1, ["1>2 (0) -ann:kicked"], [],
         ["ann:kicked"]),
    Case("its socket drops: it ends as disconnected, when ends count again", HELD,
         lambda p: p.detach("ann")[:1],
         ["grace"], [], ["ann | gone r=disconnected"]),
    Case("its socket drops, and there is no grace", HELD, lambda p: p.detach("ann", grace=0), ["departed",
         "now"],
         ["1>2 (0) -ann:disconnected"], [], ["ann:disconnected"]),
    Case("one of its sockets drops: that makes no key", HELD_WITH_THREE, lambda p: p.detach("ann", "n1.2"),
         ["kept", "now"],
         [], ["ann n1.1 n2.1 | gone"]),
    Case("it leaves with one of its sockets: that makes no key", HELD_WITH_THREE,
         lambda p: p.ask("leave", "ann", "n1.2"), ["kept", "now"], [], ["ann n1.1 n2.1 | gone"]),
    Case("one of its nodes is lost: that makes no key", [*HELD_WITH_THREE, is_lost("n2")],
         lambda p: p.in_room("count"), ["now", "epoch", 3, 0], [], ["ann n1.1 n1.2 | gone"]),
    Case("it is entered again as it was, for whoever has listed the room meanwhile",
         HELD, lambda p: p.join("ann", username="A", data="1", epoch=p.epoch()),
         ["resumed", "now", "epoch", 2, 1, "now", "diff"], ["1>2 (1) ~ann"],
         ["ann n1.1 | ttl username=A data=1"]),
    Case("it comes back by a client of its own accord: the others see its new face", HELD,
         joins("ann", "n2.1", data="2"), ["resumed", "now", "epoch", 2, 1, "now", "diff"], ["1>2 (1) ~ann"],
         ["ann n1.1 n2.1 | ttl x2 username=A data=2"]),
    Case("it comes back from its grace", [pulses, joins("ann"), detaches("ann"), lapses("ann"), stalls],
         lambda p: p.join("ann", "n2.1", epoch=p.epoch()), ["resumed", "now", "epoch", 2, 1, "now", "diff"],
         ["1>2 (1) ~ann"], ["ann n2.1 | ttl"]),
    Case("another one joins a room with one that is held", HELD, joins("bob"),
         ["joined", "now", "epoch", 2, 2, "now", "diff"], ["1>2 (2) +bob"], [*ANN_HELD, "bob n1.1 | ttl"]),
]  # fmt: skip


@each(CASES)
def test_while_ends_by_time_do_not_count(
    redis_server: Server, case: Case, ids: dict[str, str] | None
) -> None:
    check(redis_server, case, ids)


def test_a_pulse_says_until_when_ends_do_not_count(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        assert pulses(probe) == 0, "nobody to wait for in an empty shard"
        probe.join("ann")
        assert pulses(probe) == 0
        stalls(probe)
        before = probe.now()
        hold = pulses(probe)
        assert before + LEASE <= hold <= probe.now() + LEASE
        assert pulses(probe) == hold, "the next pulse does not put it off"
        hold_ends(probe)
        assert pulses(probe) == 0
        assert 0 < probe.client.pttl(probe.key("pulse")) <= 86_400_000


def test_a_shard_with_members_that_was_never_pulsed_waits_for_those_who_come_up(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        before = probe.now()
        assert pulses(probe) >= before + LEASE


def test_a_look_finds_the_held_and_comes_again_when_ends_count(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        pulses(probe)
        probe.join("ann")
        probe.lapse("ann")
        stalls(probe)
        hold = pulses(probe)
        assert probe.due(retry=1)[1:] == [hold, 0, [b"lobby:user:ann"]]
        probe.sleep()
        assert probe.due(retry=1)[2:] == [0, []], "no spin while it is held"


@pytest.mark.parametrize("others", [0, 1, BATCH])
def test_a_room_full_of_held_members_answers_at_once(redis_server: Server, others: int) -> None:
    with probing(redis_server) as probe:
        pulses(probe)
        held = [f"u{number}" for number in range(2 * BATCH)]
        alive = [f"v{number}" for number in range(others)]
        probe.join_many(held)
        probe.join_many(alive, ttl=90_000)
        probe.lapse(*held)
        stalls(probe)
        assert probe.in_room("count")[3] == others
        listing = done(probe.store.members("lobby"))
        assert len(listing.members) == listing.position.count == others
        assert done(probe.store.rooms(shard_of("lobby"))) == ({"lobby": others} if others else {})
        probe.hear()


def test_a_lost_nodes_member_whose_time_is_up_and_held_is_noted_as_disconnected(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        pulses(probe)
        probe.join("ann")
        probe.lapse("ann")
        stalls(probe)
        probe.hear()
        done(probe.store.fence_node(shard_of("lobby"), "n1"))
        done(probe.store.detach_node("n1", "lobby", grace=GRACE, away_grace=GRACE))
        done(probe.store.fence_node(shard_of("lobby"), "n1"))
        assert probe.hear().told == []
        assert probe.shadow("ann")["r"] == "disconnected"


# After Redis went back to an older state.


def test_a_room_begins_one_new_epoch_for_each_life_of_the_server(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        assert not done(probe.store.renew_epoch("lobby", "run 1")), "nobody is there"
        assert probe.keys() == set()
        probe.join("ann")
        first = probe.epoch()
        assert done(probe.store.renew_epoch("lobby", "run 1"))
        second = probe.epoch()
        assert second != first
        assert not done(probe.store.renew_epoch("lobby", "run 1"))
        assert probe.epoch() == second
        probe.hear()
        probe.join("bob")
        ((_, row),) = probe.hear().diffs
        assert (row.epoch, row.from_version > 0) == (second, True), "it joins on to what nobody has"
        assert done(probe.store.renew_epoch("lobby", "run 2"))
        assert probe.epoch() != second


LATER = 1 << 45


def test_a_member_that_came_back_with_an_older_state_is_ended_again_and_no_other_joining_of_it(
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
        probe.hear()
        assert done(probe.store.repeat_departure(entry, joined_at=joined_at, reason="left", left_at=LATER))
        assert probe.hear().told == ["1>2 (0) -ann:left"]
        assert not done(
            probe.store.repeat_departure(entry, joined_at=joined_at, reason="left", left_at=LATER)
        )
        assert probe.hear().told == []


def test_one_who_came_back_since_is_not_ended_again(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        left_at = joined_at - 1
        entry = probe.entry("ann")
        assert not done(
            probe.store.repeat_departure(entry, joined_at=joined_at, reason="left", left_at=left_at)
        )
        assert probe.hear().told[1:] == []


def test_a_departure_that_redis_lost_goes_on_record_once(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        ann = Member("ann", "Ann", joined_at, joined_at)
        assert done(probe.store.record_lost_member("lobby", ann, "disconnected")) is None, "she is there"
        gone = Member("ann", "Ann", joined_at - 1, joined_at - 1)
        assert done(probe.store.record_lost_member("lobby", gone, "disconnected")) == "disconnected"
        assert done(probe.store.record_lost_member("lobby", gone, "kicked")) == "disconnected"
        probe.ask("leave", "ann", "n1.1")
        assert done(probe.store.record_lost_member("lobby", ann, "disconnected")) == "left", (
            "it is there already"
        )
        assert [one["reason"] for one in probe.departures()] == ["disconnected", "left"]


def test_who_leaves_is_on_record_where_redis_lost_it_just_before(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        epoch, ann = probe.epoch(), Member("ann", "Ann", joined_at, joined_at)
        probe.client.flushall()

        def leave(known_epoch: str = epoch) -> str:
            return done(probe.store.leave(probe.entry("ann"), "n1.1", known=ann, known_epoch=known_epoch))

        probe.join("bob")
        assert leave(probe.epoch()) == "absent"
        assert probe.departures() == [], "in this epoch it has departed, and that is on record or was trimmed"
        assert leave() == leave() == "absent"
        assert [one["reason"] for one in probe.departures()] == ["left"]


def test_one_whose_end_is_on_record_is_not_entered_again_in_another_epoch(redis_server: Server) -> None:
    """The node that enters it had not heard of the end, for its own link was down."""
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


def test_one_who_was_here_before_redis_lost_it_is_no_newcomer_by_another_socket(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        probe.client.flushall()
        probe.sleep()
        probe.join("ann", "n2.1")  # the other socket's node was faster
        again = done(
            probe.store.join(probe.entry("ann"), "n1.1", ttl=60_000, known_epoch="*", joined_at=joined_at)
        )
        assert isinstance(again, Joined)
        assert again.joined_at == joined_at == int(probe.shadow("ann")["j"])
        assert probe.hear().told[-1] == "1>2 (1) ~ann"


@pytest.mark.parametrize("later", [False, True])
def test_of_two_stays_the_one_whose_end_is_on_record_is_not_brought_back(
    redis_server: Server, *, later: bool
) -> None:
    with probing(redis_server) as probe:
        _, first, *_ = probe.join("ann")
        probe.ask("leave", "ann", "n1.1")
        probe.sleep()
        _, second, *_ = probe.join("ann", "n2.1")
        since = second + 5 if later else first
        again = done(
            probe.store.join(probe.entry("ann"), "n1.1", ttl=60_000, known_epoch="*", joined_at=since)
        )
        assert isinstance(again, Joined)
        assert again.joined_at == (since if later else second)
