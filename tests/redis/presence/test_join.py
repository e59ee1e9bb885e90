"""`join.lua`, branch by branch."""

from typing import Any

import pytest

from tests.redis.presence.cases import Case, check, each, probing
from tests.redis.presence.probe import EMPTY_ROOM_TTL, MAX_ROWS, TTL
from tests.redis.presence.steps import (
    detaches,
    expires,
    expires_early,
    gets_no_reply,
    goes_away,
    is_fenced,
    is_kicked,
    is_made_permanent,
    is_removed,
    joins,
    leaves,
    loses_all,
    loses_presence,
    loses_shadow,
    passes,
    returns,
)
from tests.support.servers import Server

NEW = ["joined", "now", "epoch", 1, 1, "now", "diff"]
BACK = ["resumed", "now", "epoch", 1, 1, "now", ""]
CHANGED = ["resumed", "now", "epoch", 2, 1, "now", "diff"]
AFTER_ITS_END = ["joined", "now", "epoch", 3, 1, "now", "diff"]
ENDED_AND_BACK = ["1>2 (0) -ann:inactivity_timeout", "2>3 (1) +ann"]
ANN = ["ann n1.1 | ttl"]

CASES = [
    Case("new", [], joins("ann"), NEW, ["0>1 (1) +ann"], ANN),
    Case(
        "new, with every argument", [], joins("ann", username="Ann é", data='{"a":[1]}', away=1), NEW,
        ["0>1 (1) +ann"], ['ann n1.1:away | ttl away username=Ann é data={"a":[1]}'],
    ),
    Case(
        "a second user", [joins("ann")], joins("bob", "n2.1"), ["joined", "now", "epoch", 2, 2, "now",
        "diff"],
        ["1>2 (2) +bob"], [*ANN, "bob n2.1 | ttl"],
    ),
    Case("the default username is the user's id", [], joins("bob"), NEW, ["0>1 (1) +bob"],
         ["bob n1.1 | ttl"]),
    # One more connection, or the same again.
    Case(
        "a second connection", [joins("ann"), passes(5)], joins("ann", "n1.2"), CHANGED, ["1>2 (1) ~ann"],
        ["ann n1.1 n1.2 | ttl x2"],
    ),
    Case(
        "a second connection on another node", [joins("ann")], joins("ann", "n2.1"), CHANGED,
        ["1>2 (1) ~ann"],
        ["ann n1.1 n2.1 | ttl x2"],
    ),
    Case(
        "a connection beyond the limit of a user", [joins("ann"), joins("ann", "n2.1")],
        joins("ann", "n1.2", max_connections=2), ["crowded", 2], [], ["ann n1.1 n2.1 | ttl x2"],
    ),
    Case(
        "one of as many connections as a user may have, again", [joins("ann"), joins("ann", "n2.1")],
        joins("ann", max_connections=2), ["resumed", "now", "epoch", 2, 1, "now", ""], [],
        ["ann n1.1 n2.1 | ttl x2"],
    ),
    Case("the same connection again", [joins("ann"), passes(5)], joins("ann"), BACK, [], ANN),
    Case(
        "a connection beside an away one", [joins("ann"), goes_away("ann")],
        joins("ann", "n1.2"), ["resumed", "now", "epoch", 3, 1, "now", "diff"], ["2>3 (1) ~ann"],
        ["ann n1.1:away n1.2 | ttl x2"],
    ),
    Case(
        "an away connection beside an away one", [joins("ann", away=1)], joins("ann", "n1.2", away=1),
        CHANGED, ["1>2 (1) ~ann"], ["ann n1.1:away n1.2:away | ttl away x2"],
    ),
    # Back within the grace.
    Case("back on a new socket", [joins("ann"), detaches("ann"), passes(5)], joins("ann", "n2.7"), BACK, [],
         ["ann n2.7 | ttl"]),
    Case("back on the same socket", [joins("ann"), detaches("ann")], joins("ann"), BACK, [], ANN),
    Case(
        "back from an away grace, away as before", [joins("ann", away=1), detaches("ann")],
        joins("ann", "n1.2"), BACK, [], ["ann n1.2:away | ttl away"],
    ),
    # A new name, new data.
    Case("another name", [joins("ann")], joins("ann", username="A"), CHANGED, ["1>2 (1) ~ann"],
         ["ann n1.1 | ttl username=A"]),
    Case("the same name", [joins("ann", username="A")], joins("ann", username="A"), BACK, [],
         ["ann n1.1 | ttl username=A"]),
    Case("no name keeps the name", [joins("ann", username="A", data="1")], joins("ann"), BACK, [],
         ["ann n1.1 | ttl username=A data=1"]),
    Case("other data", [joins("ann", data="1")], joins("ann", data="2"), CHANGED, ["1>2 (1) ~ann"],
         ["ann n1.1 | ttl data=2"]),
    Case("the same data", [joins("ann", data="1")], joins("ann", data="1"), BACK, [],
         ["ann n1.1 | ttl data=1"]),
    # A former name of the connection.
    Case("in place of its former name", [joins("ann")], joins("ann", "n2.1", replaces="n1.1"), BACK, [],
         ["ann n2.1 | ttl"]),
    Case("in place of an unknown name", [joins("ann")], joins("ann", "n2.1", replaces="n9.9"),
         CHANGED,
         ["1>2 (1) ~ann"], ["ann n1.1 n2.1 | ttl x2"]),
    Case("in place of a former name, while another connection of that node stays",
         [joins("ann"), joins("ann", "n1.2")], joins("ann", "n2.1", replaces="n1.1"),
         ["resumed", "now", "epoch", 2, 1, "now", ""], [], ["ann n1.2 n2.1 | ttl x2"]),
    # After an expiry that was not noticed.
    Case("after an unnoticed expiry", [joins("ann"), expires("ann")], joins("ann"), AFTER_ITS_END,
         ENDED_AND_BACK,
         ANN,
         ["ann:inactivity_timeout"]),
    Case("after an expired grace", [joins("ann"), detaches("ann"), expires("ann")], joins("ann"),
         AFTER_ITS_END,
         ["1>2 (0) -ann:disconnected", "2>3 (1) +ann"], ANN, ["ann:disconnected"]),
    Case("after an expiry before the stored deadline",
         [joins("ann"), expires_early("ann")],
         joins("ann"), AFTER_ITS_END, ENDED_AND_BACK, ANN, ["ann:inactivity_timeout"]),
    Case("after the presence key was deleted externally", [joins("ann"), loses_presence("ann")], joins("ann"),
         AFTER_ITS_END,
         ENDED_AND_BACK, ANN, ["ann:inactivity_timeout"]),
    Case("no field of the expired member remains", [joins("ann", username="A", data="1", away=1),
         expires("ann")],
         joins("ann"), AFTER_ITS_END, ENDED_AND_BACK, ANN, ["ann:inactivity_timeout"]),
    Case("while others have expired", [joins("bob"), joins("cy", "n2.1"), expires("bob")], joins("ann"),
         ["joined", "now", "epoch", 4, 2, "now", "diff"], ["2>3 (1) -bob:inactivity_timeout", "3>4 (2) +ann"],
         ["ann n1.1 | ttl", "cy n2.1 | ttl"], ["bob:inactivity_timeout"]),
    # Keys edited externally.
    Case("after the shadow was deleted externally", [joins("ann"), loses_shadow("ann")], joins("ann"),
         BACK, [], ANN),
    Case("a key made permanent gets an expiry", [joins("ann"), is_made_permanent("ann")], joins("ann"),
         BACK, [],
         ANN),
    Case("a shorter TTL than before", [joins("ann")], joins("ann", ttl=20_000), BACK, [],
         ["ann n1.1 | 20s"]),
    # Refusals.
    Case("full", [joins("bob")], joins("ann", max_members=1), ["full", 1], [], ["bob n1.1 | ttl"]),
    Case("full, but there already", [joins("ann")], joins("ann", "n1.2", max_members=1), CHANGED,
         ["1>2 (1) ~ann"], ["ann n1.1 n1.2 | ttl x2"]),
    Case("full of an expired member", [joins("bob"), expires("bob")], joins("ann", max_members=1),
         AFTER_ITS_END, ["1>2 (0) -bob:inactivity_timeout", "2>3 (1) +ann"], ANN, ["bob:inactivity_timeout"]),
    Case("a member of this epoch that departed", [joins("bob"), joins("ann"), leaves("ann")],
         lambda p: p.join("ann", epoch=p.epoch()), ["departed"], [], ["bob n1.1 | ttl"]),
    Case("a member of this epoch that has just expired", [joins("ann"), expires("ann")],
         lambda p: p.join("ann", epoch=p.epoch()), ["departed"], ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("a present member of this epoch", [joins("ann")], lambda p: p.join("ann", epoch=p.epoch()),
         BACK,
         [], ANN),
    Case("a member of a past epoch", [joins("ann"), leaves("ann")], joins("ann", epoch="1"),
         AFTER_ITS_END, ["2>3 (1) +ann"], ANN),
    # The return of a client.
    Case("a return within the grace keeps name and data",
         [joins("ann", username="A", data="1"), detaches("ann")],
         returns(username="B", data="2"), BACK, [], ["ann n1.1 | ttl username=A data=1"]),
    Case("a return beside another connection keeps name and data", [joins("ann", username="A", data="1")],
         returns(connection="n2.1", username="B", data="2"), CHANGED, ["1>2 (1) ~ann"],
         ["ann n1.1 n2.1 | ttl x2 username=A data=1"]),
    Case("a return sets what a token fixes", [joins("ann", username="A", data="1")],
         returns(keep="d", username="B", data="2"), CHANGED, ["1>2 (1) ~ann"],
         ["ann n1.1 | ttl username=B data=1"]),
    Case("a return after the grace brings name and data",
         [joins("ann", data="1"), detaches("ann"), expires("ann")],
         returns(username="B", data="2"), AFTER_ITS_END, ["1>2 (0) -ann:disconnected", "2>3 (1) +ann"],
         ["ann n1.1 | ttl username=B data=2"], ["ann:disconnected"]),
    Case("a return after a leave on another device", [joins("ann"), leaves("ann")],
         returns(), AFTER_ITS_END, ["2>3 (1) +ann"], ANN),
    Case("a return after a kick", [joins("ann"), is_kicked("ann", "Enough.")], returns(),
         ["removed", "kicked", "Enough.", "now"]),
    Case("a return after a kick within the grace", [joins("ann"), detaches("ann"), is_kicked("ann")],
         returns(), ["removed", "kicked", "", "now"]),
    Case("a return after an expiry", [joins("ann"), expires("ann")], returns(),
         ["removed", "inactivity_timeout", "", "now"], ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("a return after a removal for a reason of a newer node",
         [joins("ann"), is_removed("ann", "banned")], returns(), ["removed", "banned", "", "now"]),
    Case("a join after a kick", [joins("ann"), is_kicked("ann")], joins("ann"),
         AFTER_ITS_END, ["2>3 (1) +ann"], ANN),
    Case("a return after a kick and a join on another device",
         [joins("ann"), is_kicked("ann"), joins("ann", "n2.1")], returns(joined_at=1),
         ["removed", "kicked", "", "now"], [], ["ann n2.1 | ttl"]),
    Case("a return to a joining after a kick", [joins("ann"), is_kicked("ann"), joins("ann", "n2.1")],
         returns(version=3, joined_at=1), ["resumed", "now", "epoch", 4, 1, "now", "diff"],
         ["3>4 (1) ~ann"], ["ann n1.1 n2.1 | ttl x2"]),
    Case("a return from a past epoch, joined before the kick", [joins("ann"), is_kicked("ann")],
         returns(epoch="1", joined_at=1), ["removed", "kicked", "", "now"]),
    Case("a return from an unknown epoch, joined after the kick", [joins("ann"), is_kicked("ann")],
         returns(epoch="1", joined_at=10**15), AFTER_ITS_END, ["2>3 (1) +ann"], ANN),
    Case("a return more than an hour after a kick", [joins("ann"), is_kicked("ann"), passes(3601)],
         returns(epoch="1"), NEW, ["0>1 (1) +ann"], ANN),
    Case("a return when Redis has lost everything", [joins("ann"), is_kicked("ann"), loses_all],
         returns(epoch="1", joined_at=1), NEW, ["0>1 (1) +ann"], ANN),
    Case("a join that arrives after its connection was detached", [gets_no_reply("ann")], joins("ann"),
         ["departed"], [], []),
    Case("over a connection whose join of another member got no reply", [gets_no_reply("bob")], joins("ann"),
         NEW, ["0>1 (1) +ann"], ANN),
    Case("of a lost node", [joins("bob", "n2.1"), is_fenced("n1")], joins("ann"), ["fenced"], [],
         ["bob n2.1 | ttl"]),
    Case("of a lost node, of a member that is there", [joins("ann", "n2.1"), passes(5), is_fenced("n1")],
         joins("ann"), ["fenced"], [], ["ann n2.1 | ttl-5s"]),
]  # fmt: skip


@each(CASES)
def test_join(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


def test_a_new_member_has_both_keys_with_these_fields(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        began = probe.now()
        _, now, *_ = probe.join("ann", username="Ann", data="[1]", connection="n1.a")
        presence, shadow = probe.presence("ann"), probe.shadow("ann")
        assert presence == {
            "socketId": "n1.a", "userId": "ann", "roomId": "lobby", "username": "Ann",
            "lastActiveAt": str(now), "joinedAt": str(now), "data": "[1]",
        }  # fmt: skip
        assert shadow == {"u": "Ann", "j": str(now), "n1.a": "0"}
        assert (
            began <= now <= probe.stored_deadline("ann") - TTL <= probe.expires_at("ann") - TTL <= probe.now()
        )
        assert probe.client.ttl(probe.shadow_key("ann")) == -1


def test_a_rejoin_keeps_joined_at_and_updates_last_active_at(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        _, joined_at, *_ = probe.join("ann")
        probe.advance_clock()
        _, now, *_, returned, _ = probe.join("ann", "n2.1")
        assert now > joined_at == returned
        presence = probe.presence("ann")
        assert presence["joinedAt"] == str(joined_at)
        assert presence["lastActiveAt"] == str(now)
        assert presence["socketId"] == "n2.1"


def test_a_join_after_an_unnoticed_expiry_publishes_both_and_the_late_event_does_nothing(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.expire("ann")
        probe.received()
        probe.join("ann", "n2.1")
        received = probe.received()
        assert received.expired == [probe.presence_key("ann")]
        assert received.changes == ["1>2 (0) -ann:inactivity_timeout", "2>3 (1) +ann"]
        assert probe.claim("ann")[1:] == []
        assert probe.received().changes == []
        assert probe.shadow("ann").keys() == {"u", "j", "n2.1"}


@pytest.mark.parametrize("expired", [MAX_ROWS - 1, MAX_ROWS, 2 * MAX_ROWS + 1])
def test_thousands_of_expired_members_are_settled_in_limited_calls(
    redis_server: Server, expired: int
) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(expired)]
        probe.join_many(users)
        probe.expire(*users)
        probe.received()
        asked_again = 0
        while (reply := probe.join("ann")) == [b"again"]:
            asked_again += 1
        assert asked_again == expired // MAX_ROWS
        assert reply[0] == b"joined"
        assert reply[3:5] == [2 * expired + 1, 1]
        diffs = [row for _, row in probe.received().diffs]
        assert sum(len(row.left) for row in diffs) == expired
        assert max(len(row.left) for row in diffs) <= MAX_ROWS
        assert probe.totals() == {"inactivity_timeout": expired}


def test_an_emptied_room_keeps_its_epoch_for_a_while_and_then_begins_a_new_one(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        first = probe.epoch()
        probe.ask("leave", "ann", "n1.1")
        assert probe.epoch() == first
        assert 0 < probe.client.pttl(probe.state_key()) <= EMPTY_ROOM_TTL
        probe.join("ann")
        assert (probe.epoch(), probe.version()) == (first, 3)
        assert probe.client.pttl(probe.state_key()) == -1
        probe.ask("leave", "ann", "n1.1")
        probe.pass_time(EMPTY_ROOM_TTL)
        assert not probe.client.exists(probe.state_key())
        reply: Any = probe.join("ann", epoch=first)
        assert reply[0] == b"joined", "a departure in another epoch does not count"
        assert reply[2].decode() == probe.epoch() != first
        assert probe.version() == 1


def test_only_the_shards_earliest_deadline_wakes_the_pacemaker(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        probe.join("ann", ttl=50_000)
        assert probe.received().wakes == [probe.stored_deadline("ann")]
        probe.join("bob", ttl=60_000)
        assert probe.received().wakes == []
        probe.join("cy", ttl=20_000)
        assert probe.received().wakes == [probe.stored_deadline("cy")]
        probe.join("ann", "n1.2", ttl=10_000)
        assert probe.received().wakes == [probe.stored_deadline("ann")]
