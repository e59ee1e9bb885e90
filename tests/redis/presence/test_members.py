"""The scripts about one member: refresh, update, set_away, detach, leave, kick, ban_user, is_present."""

from typing import Any

from reactor.presence.keys import escape
from tests.redis.presence.cases import Case, Step, check, each, probing
from tests.redis.presence.probe import TTL, Probe
from tests.redis.presence.steps import (
    detaches,
    expires,
    goes_away,
    is_fenced,
    is_lost,
    is_made_permanent,
    joins,
    leaves,
    loses_presence,
    loses_shadow,
    passes,
    patches,
    updates,
)
from tests.support.servers import Server

ANN = ["ann n1.1 | ttl"]
ANN_OLD = ["ann n1.1 | ttl-5s"]
EXPIRED_DIFF = ["1>2 (0) -ann:inactivity_timeout"]
GONE = ["ann:inactivity_timeout"]
TWO = [joins("ann"), joins("ann", "n1.2"), passes(5)]

REFRESH = [
    Case("alive", [joins("ann"), passes(5)], lambda p: p.refresh("ann"), ["now", "1"], [], ANN),
    Case("several", [joins("ann"), joins("cy"), passes(5)], lambda p: p.refresh("ann", "bob", "cy"),
         ["now", "101"], [], [*ANN, "cy n1.1 | ttl"]),
    Case("no member named", [joins("ann")], lambda p: p.refresh(), ["now", ""], [], ANN),
    Case("never there", [], lambda p: p.refresh("ann"), ["now", "0"]),
    Case("expired", [joins("ann"), expires("ann")], lambda p: p.refresh("ann"), ["now", "0"], [],
         ["ann n1.1 | gone"]),
    Case("deleted externally", [joins("ann"), loses_presence("ann")], lambda p: p.refresh("ann"), ["now",
         "0"],
         [],
         ["ann n1.1 | gone"]),
    Case("made permanent externally", [joins("ann"), is_made_permanent("ann")], lambda p: p.refresh("ann"),
         ["now",
         "1"], [],
         ANN),
    Case("of another node than the connection's", [joins("ann"), passes(5)],
         lambda p: p.refresh("ann", node="n2"), ["now", "1"], [], ANN),
    Case("of a lost node", [joins("ann", "n2.1"), joins("cy", "n2.1"), passes(5), is_fenced("n1")],
         lambda p: p.refresh("ann", "bob", "cy"), ["now", "000"], [],
         ["ann n2.1 | ttl-5s", "cy n2.1 | ttl-5s"]),
]  # fmt: skip

UPDATE = [
    Case("never there", [], updates("A", ""), ["absent"]),
    Case("expired", [joins("ann"), expires("ann")], updates("A", "1"), ["absent"],
         EXPIRED_DIFF, [], GONE),
    Case("name", [joins("ann"), passes(5)], updates("Ann É", ""),
         ["updated", "now", "epoch", 2, "diff", 0], ["1>2 (1) ~ann"], ["ann n1.1 | ttl-5s username=Ann É"]),
    Case("data", [joins("ann", data="1")], updates("", '{"a":null}'),
         ["updated", "now", "epoch", 2, "diff", 0], ["1>2 (1) ~ann"], ['ann n1.1 | ttl data={"a":null}']),
    Case("both", [joins("ann", data="1")], updates("A", "2"),
         ["updated", "now", "epoch", 2, "diff", 0], ["1>2 (1) ~ann"], ["ann n1.1 | ttl username=A data=2"]),
    Case("the same", [joins("ann", username="A", data="2")], updates("A", "2"),
         ["updated", "now", "epoch", 1, "", 0], [], ["ann n1.1 | ttl username=A data=2"]),
    Case("nothing", [joins("ann", username="A", data="2")], updates("", ""),
         ["updated", "now", "epoch", 1, "", 0], [], ["ann n1.1 | ttl username=A data=2"]),
    Case("a patch", [joins("ann", data='{"a":[],"n":12345678901234567890}')], patches('{"t":true}'),
         ["updated", "now", "epoch", 2, "diff", 33], ["1>2 (1) ~ann"],
         ['ann n1.1 | ttl data={"a":[],"n":12345678901234567890,"t":true}']),
    Case("a patch that changes nothing", [joins("ann", data='{"a":1}')], patches('{"a":1,"b":null}'),
         ["updated", "now", "epoch", 1, "", 7], [], ['ann n1.1 | ttl data={"a":1}']),
    Case("a patch without data", [joins("ann")], patches('{"a":{"b":null,"c":1},"d":null}'),
         ["updated", "now", "epoch", 2, "diff", 0], ["1>2 (1) ~ann"], ['ann n1.1 | ttl data={"a":{"c":1}}']),
    Case("a patch and a name", [joins("ann", data='{"a":1}')], patches('{"a":2}', "A"),
         ["updated", "now", "epoch", 2, "diff", 7], ["1>2 (1) ~ann"],
         ['ann n1.1 | ttl username=A data={"a":2}']),
    Case("a patch to the limit", [joins("ann", data='{"a":1}')], patches('{"b":2}', max_data=13),
         ["updated", "now", "epoch", 2, "diff", 7], ["1>2 (1) ~ann"], ['ann n1.1 | ttl data={"a":1,"b":2}']),
    Case("a patch beyond the limit", [joins("ann", data='{"a":1}')], patches('{"b":2}', "A", max_data=12),
         ["too_big", 13, 7], [], ['ann n1.1 | ttl data={"a":1}']),
    Case("a patch of data that was edited externally", [joins("ann", data='{"a":')], patches('{"b":2}'),
         ["updated", "now", "epoch", 2, "diff", 5], ["1>2 (1) ~ann"], ['ann n1.1 | ttl data={"b":2}']),
    Case("a patch of a user who is no member", [], patches('{"b":2}'), ["absent"]),
    Case("in the grace", [joins("ann"), detaches("ann")], updates("A", ""),
         ["updated", "now", "epoch", 2, "diff", 0], ["1>2 (1) ~ann"],
         ["ann | grace username=A r=disconnected"]),
]  # fmt: skip

AWAY = [
    Case("never there", [], lambda p: p.ask("set_away", "ann", "n1.1", 1), ["now", None]),
    Case("expired", [joins("ann"), expires("ann")], lambda p: p.ask("set_away", "ann", "n1.1", 1),
         ["now", None], EXPIRED_DIFF, [], GONE),
    Case("an unknown connection", [joins("ann")], lambda p: p.ask("set_away", "ann", "n1.2", 1),
         ["now", None],
         [], ANN),
    Case("in the grace", [joins("ann"), detaches("ann")], lambda p: p.ask("set_away", "ann", "n1.1", 1),
         ["now", None], [],
         ["ann | grace r=disconnected"]),
    Case("the only one", [joins("ann"), passes(5)], lambda p: p.ask("set_away", "ann", "n1.1", 1),
         ["now", "diff"], ["1>2 (1) ~ann"], ["ann n1.1:away | ttl-5s away"]),
    Case("again", [joins("ann", away=1)], lambda p: p.ask("set_away", "ann", "n1.1", 1), ["now", ""],
         [], ["ann n1.1:away | ttl away"]),
    Case("one of two", TWO, lambda p: p.ask("set_away", "ann", "n1.1", 1), ["now", ""], [],
         ["ann n1.1:away n1.2 | ttl-5s x2"]),
    Case("the second of two", [*TWO, goes_away("ann")], lambda p: p.ask("set_away", "ann", "n1.2", 1),
         ["now", "diff"], ["2>3 (1) ~ann"], ["ann n1.1:away n1.2:away | ttl-5s away x2"]),
    Case("back", [joins("ann", away=1)], lambda p: p.ask("set_away", "ann", "n1.1", 0), ["now", "diff"],
         ["1>2 (1) ~ann"], ANN),
    Case("back without having been away", [joins("ann")], lambda p: p.ask("set_away", "ann", "n1.1", 0),
         ["now", ""], [],
         ANN),
]  # fmt: skip

DETACH = [
    Case("never there", [], lambda p: p.detach("ann"), ["absent"]),
    Case("expired", [joins("ann"), expires("ann")], lambda p: p.detach("ann"), ["absent"], EXPIRED_DIFF, [],
         GONE),
    Case("after leaving", [joins("ann"), leaves("ann")], lambda p: p.detach("ann"), ["absent"]),
    Case("one of two", TWO, lambda p: p.detach("ann"), ["kept", "now"], ["2>3 (1) ~ann"],
         ["ann n1.2 | ttl-5s"]),
    Case("the one that is not away, of two", [*TWO, goes_away("ann")], lambda p: p.detach("ann",
         "n1.2"),
         ["kept", "now"], ["2>3 (1) ~ann"], ["ann n1.1:away | ttl-5s away"]),
    Case("an unknown one, beside others", TWO, lambda p: p.detach("ann", "n2.1"), ["kept", "now"], [],
         ["ann n1.1 n1.2 | ttl-5s x2"]),
    Case("the last", [joins("ann"), passes(5)], lambda p: p.detach("ann"), ["grace", "now", "now+grace"], [],
         ["ann | grace r=disconnected"]),
    Case("the last, away", [joins("ann", away=1)], lambda p: p.detach("ann"), ["grace", "now",
         "now+away-grace"],
         [], ["ann | away-grace away r=disconnected"]),
    Case("twice: the grace does not restart", [joins("ann"), detaches("ann"), passes(5)],
         lambda p: p.detach("ann"), ["grace", "now", "now+grace-5s"], [], ["ann | grace-5s r=disconnected"]),
    Case("the TTL ends before the grace would", [joins("ann", ttl=10_500), passes(5)],
         lambda p: p.detach("ann"),
         ["grace", "now", "now+grace-5s"], [], ["ann | grace-5s r=disconnected"]),
    Case("no grace", [joins("ann"), joins("bob")], lambda p: p.detach("ann", grace=0), ["departed", "now"],
         ["2>3 (1) -ann:disconnected"], ["bob n1.1 | ttl"], ["ann:disconnected"]),
    Case("no grace when away", [joins("ann", away=1)], lambda p: p.detach("ann", away_grace=0),
         ["departed", "now"], ["1>2 (0) -ann:disconnected"], [], ["ann:disconnected"]),
    Case("no grace, but another connection", TWO, lambda p: p.detach("ann", grace=0), ["kept", "now"],
         ["2>3 (1) ~ann"], ["ann n1.2 | ttl-5s"]),
    Case("made permanent externally", [joins("ann"), is_made_permanent("ann")], lambda p: p.detach("ann"),
         ["grace", "now", "now+grace"], [], ["ann | grace r=disconnected"]),
    Case("no shadow", [joins("ann"), loses_shadow("ann")], lambda p: p.detach("ann"),
         ["grace", "now", "now+grace"], [], ["ann | grace r=disconnected"]),
    Case("after its node was lost", [joins("ann"), is_lost("n1"), passes(5)], lambda p: p.detach("ann"),
         ["grace", "now", "now+grace-5s"], [], ["ann | grace-5s r=disconnected"]),
]  # fmt: skip

LEAVE = [
    Case("never there", [], lambda p: p.ask("leave", "ann", "n1.1"), ["absent"]),
    Case("expired", [joins("ann"), expires("ann")], lambda p: p.ask("leave", "ann", "n1.1"), ["absent"],
         EXPIRED_DIFF,
         [], GONE),
    Case("the last", [joins("ann"), joins("bob")], lambda p: p.ask("leave", "ann", "n1.1"), ["left", "now"],
         ["2>3 (1) -ann:left"], ["bob n1.1 | ttl"], ["ann:left"]),
    Case("twice", [joins("ann"), leaves("ann")], lambda p: p.ask("leave", "ann", "n1.1"), ["absent"]),
    Case("one of two", TWO, lambda p: p.ask("leave", "ann", "n1.1"), ["kept", "now"], ["2>3 (1) ~ann"],
         ["ann n1.2 | ttl-5s"]),
    Case("an unknown one, beside others", [joins("ann")], lambda p: p.ask("leave", "ann", "n2.1"),
         ["kept", "now"], [], ANN),
    Case("in the grace", [joins("ann"), detaches("ann")], lambda p: p.ask("leave", "ann", "n1.1"), ["left",
         "now"],
         ["1>2 (0) -ann:left"], [], ["ann:left"]),
    Case("no shadow", [joins("ann"), loses_shadow("ann")], lambda p: p.ask("leave", "ann", "n1.1"),
         ["left", "now"], ["1>2 (0) -ann:left"], [], ["ann:left"]),
]  # fmt: skip

KICK = [
    Case("never there", [], lambda p: p.ask("kick", "ann", ""), 0),
    Case("by a ban that has ended", [joins("ann")], lambda p: p.ask("kick", "ann", "", "banned", p.now()), 0,
         [], ["ann n1.1 | ttl"]),
    Case("by a ban", [joins("ann")], lambda p: p.ask("kick", "ann", "", "banned", p.now() + 60_000), 1,
         ["1>2 (0) -ann:banned"], [], ["ann:banned"]),
    Case("expired", [joins("ann"), expires("ann")], lambda p: p.ask("kick", "ann", ""), 0, EXPIRED_DIFF, [],
         GONE),
    Case("there, with all connections", [joins("ann"), joins("ann", "n2.1"), joins("bob")],
         lambda p: p.ask("kick", "ann", ""), 1, ["3>4 (1) -ann:kicked"], ["bob n1.1 | ttl"], ["ann:kicked"]),
    Case("in the grace", [joins("ann"), detaches("ann")], lambda p: p.ask("kick", "ann", ""), 1,
         ["1>2 (0) -ann:kicked"], [], ["ann:kicked"]),
]  # fmt: skip


def bans_everywhere(ends_in: int) -> Step:
    """The shard's part of a ban everywhere that ends in so many ms."""

    def ban(probe: Probe) -> Any:
        ends_at = probe.now() + ends_in
        return probe.on_shard("ban_user", "lobby", escape(probe.id("ann")), "{}", ends_at, "", 0, 100, 0)

    return ban


BAN_USER = [
    Case("never there", [], bans_everywhere(60_000), ["0", 0]),
    Case("there", [joins("ann"), joins("bob")], bans_everywhere(60_000), ["0", 1], ["2>3 (1) -ann:banned"],
         ["bob n1.1 | ttl"], ["ann:banned"]),
    Case("by a ban that has ended", [joins("ann")], bans_everywhere(0), ["0", 0], [], ["ann n1.1 | ttl"]),
]  # fmt: skip

IS_PRESENT = [
    Case("never there", [], lambda p: p.ask("is_present", "ann"), 0),
    Case("there", [joins("ann"), passes(5)], lambda p: p.ask("is_present", "ann"), 1, [], ANN_OLD),
    Case("in the grace", [joins("ann"), detaches("ann")], lambda p: p.ask("is_present", "ann"), 1, [],
         ["ann | grace r=disconnected"]),
    Case("expired", [joins("ann"), expires("ann")], lambda p: p.ask("is_present", "ann"), 0, EXPIRED_DIFF, [],
         GONE),
    Case("deleted externally", [joins("ann"), loses_presence("ann")], lambda p: p.ask("is_present", "ann"), 0,
         EXPIRED_DIFF, [], GONE),
]  # fmt: skip


@each(REFRESH)
def test_refresh(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(UPDATE)
def test_update(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(AWAY)
def test_away(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(DETACH)
def test_detach(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(LEAVE)
def test_leave(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(KICK)
def test_kick(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(BAN_USER)
def test_ban_user(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(IS_PRESENT)
def test_is_present(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


def test_a_heartbeat_updates_last_active_at_and_no_stored_deadline(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann", data="1")
        before, stored = probe.presence("ann"), probe.stored_deadline("ann")
        probe.advance_clock()
        now, _ = probe.refresh("ann")
        assert probe.presence("ann") == before | {"lastActiveAt": str(now)}
        assert probe.stored_deadline("ann") == stored
        assert now + TTL <= probe.expires_at("ann")
        assert probe.received().wakes == [stored]  # that of the join


def test_a_heartbeat_of_an_expired_member_publishes_the_event_and_leaves_the_departure_to_the_claim(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.expire("ann")
        probe.received()
        assert probe.refresh("ann")[1] == b"0"
        received = probe.received()
        assert (received.expired, received.changes) == ([probe.presence_key("ann")], [])
        assert probe.presence("ann") == {}
        assert probe.refresh("ann")[1] == b"0"
        assert probe.received().expired == []
        assert len(probe.claim("ann")) == 4


def test_a_disconnect_grace_lowers_the_stored_deadline_and_wakes_the_pacemaker(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.join("bob", "n2.1")
        probe.received()
        *_, deadline = probe.detach("ann")
        assert probe.stored_deadline("ann") == deadline == probe.expires_at("ann")
        assert probe.received().wakes == [deadline]
        assert probe.shadow("ann").keys() == {"u", "j", "a", "r", "n"}
        assert probe.shadow("ann")["n"] == "n1"


def test_a_kick_can_carry_a_message(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.join("bob")
        probe.received()
        probe.ask("kick", "ann", "Out — now.")
        probe.ask("kick", "bob", "")
        received = probe.received()
        assert [left.message for _, row in received.diffs for left in row.left] == ["Out — now.", ""]
