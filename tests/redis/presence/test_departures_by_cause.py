"""The scripts that expire members: claim, and due, the pacemaker's scan."""

import pytest

from tests.redis.presence.cases import Case, check, each, probing
from tests.redis.presence.probe import EMPTY_ROOM_TTL, MAX_ROWS, TTL
from tests.redis.presence.steps import (
    detaches,
    expires,
    joins,
    loses_presence,
    loses_shadow,
    passes,
)
from tests.support import servers
from tests.support.keyspace import shard_of
from tests.support.servers import Server
from tests.support.stores import done
from tests.support.waiting import until_blocking

ANN = ["ann n1.1 | ttl"]

CLAIM = [
    Case("no member named", [joins("ann")], lambda p: p.claim(), ["now"], [], ANN),
    Case("never there", [], lambda p: p.claim("ann"), ["now"]),
    Case("alive", [joins("ann"), passes(5)], lambda p: p.claim("ann"), ["now"], [], ["ann n1.1 | ttl-5s"]),
    Case("expired", [joins("ann"), joins("bob"), expires("ann")], lambda p: p.claim("ann")[:3],
         ["now", "lobby/ann", "inactivity_timeout"], ["2>3 (1) -ann:inactivity_timeout"], ["bob n1.1 | ttl"],
         ["ann:inactivity_timeout"]),
    Case("grace over", [joins("ann"), detaches("ann"), expires("ann")], lambda p: p.claim("ann")[:3],
         ["now", "lobby/ann", "disconnected"], ["1>2 (0) -ann:disconnected"], [], ["ann:disconnected"]),
    Case("expired with an open connection: inactivity, not disconnected",
         [joins("ann"), joins("ann", "n1.2"), detaches("ann"), expires("ann")], lambda p: p.claim("ann")[:3],
         ["now", "lobby/ann", "inactivity_timeout"], ["3>4 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("expired after it returned from a grace", [joins("ann"), detaches("ann"), joins("ann"),
         expires("ann")],
         lambda p: p.claim("ann")[:3], ["now", "lobby/ann", "inactivity_timeout"],
         ["1>2 (0) -ann:inactivity_timeout"], [], ["ann:inactivity_timeout"]),
    Case("twice", [joins("ann"), expires("ann"), lambda p: p.claim("ann")], lambda p: p.claim("ann"),
         ["now"]),
    Case("named twice in one call", [joins("ann"), expires("ann")],
         lambda p: [len(p.claim("ann", "ann"))], [4], ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("came again meanwhile", [joins("ann"), expires("ann"), joins("ann")], lambda p: p.claim("ann"),
         ["now"], [],
         ANN),
    Case("several, some alive", [joins("ann"), joins("bob"), joins("cy"), expires("ann"), expires("cy")],
         lambda p: p.claim("ann", "bob", "cy")[1::3], ["lobby/ann", "lobby/cy"],
         ["3>5 (1) -ann:inactivity_timeout -cy:inactivity_timeout"], ["bob n1.1 | ttl"],
         ["ann:inactivity_timeout", "cy:inactivity_timeout"]),
    Case("deleted externally", [joins("ann"), loses_presence("ann")], lambda p: p.claim("ann")[1:3],
         ["lobby/ann", "inactivity_timeout"], ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("both keys deleted externally", [joins("ann"), loses_presence("ann"), loses_shadow("ann")],
         lambda p: p.claim("ann")[1:3], ["lobby/ann", "inactivity_timeout"],
         ["1>2 (0) -ann:inactivity_timeout"],
         [], ["ann:inactivity_timeout"]),
]  # fmt: skip

DUE = [
    Case("an empty shard", [], lambda p: p.due(), ["now", -1, 0, []]),
    Case("nothing due", [joins("ann")], lambda p: p.due(), ["now", "now+ttl", 0, []], [], ANN),
    Case("one alive: it gets its true deadline", [joins("ann"), passes(5), lambda p: p.refresh("ann"),
         passes(58)],
         lambda p: p.due(), ["now", "now+ttl-58s", 1, []], [], ["ann n1.1 | ttl-58s"]),
    Case("one expired", [joins("ann"), expires("ann")], lambda p: p.due(retry=20_000),
         ["now", "now+20s", 0, ["lobby/ann"]], [], ["ann n1.1 | gone"]),
    Case("a grace over", [joins("ann"), joins("bob"), detaches("ann"), expires("ann")],
         lambda p: p.due(retry=20_000),
         ["now", "now+20s", 0, ["lobby/ann"]], [], ["ann | gone r=disconnected", "bob n1.1 | ttl"]),
    Case("a refresh after the detach: the stored deadline is not the expiry",
         [joins("ann", away=1), detaches("ann"), joins("ann"), passes(31)],
         lambda p: p.due(), ["now", "now+ttl-31s", 1, []], [], ["ann n1.1:away | ttl-31s away"]),
]  # fmt: skip


@each(CLAIM)
def test_claim(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(DUE)
def test_due(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


def test_a_scan_moves_the_deadlines_of_all_living_members(redis_server: Server) -> None:
    """The trap of lazy deadlines: a due member that turns out to be refreshed must always move forward."""
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(50)]
        for number, user in enumerate(users):
            probe.join(
                user, ttl=1_000 + 1_000 * number, room="lobby" if number % 2 else "hall of the same shard"
            )
        refreshed_to = 500_000
        probe.join("ann")
        for room in ("lobby", "hall of the same shard"):
            probe.refresh(*(users[1::2] if room == "lobby" else users[::2]), room=room, ttl=refreshed_to)
        probe.pass_time(55_000)
        for shard in {shard_of(room) for room in ("lobby", "hall of the same shard")}:
            first = done(probe.store.due(shard, limit=1000, retry=250))
            assert first.gone == []
            assert first.moved == 25
            assert first.next_deadline is not None
            assert first.next_deadline > first.now
            second = done(probe.store.due(shard, limit=1000, retry=250))
            assert (second.moved, second.gone) == (0, [])
            assert second.next_deadline == first.next_deadline


def test_a_scan_examines_at_most_its_limit_and_the_next_one_continues(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        for number in range(25):
            probe.join(f"u{number}", ttl=1_000)
        probe.refresh(*(f"u{number}" for number in range(25)))
        probe.pass_time(2_000)
        moved = []
        for _ in range(4):
            now, following, rows, _ = probe.due(limit=10)
            moved.append(rows)
            assert (following < now) == (len(moved) < 3), "what is left is due at once, and then nothing is"
        assert moved == [10, 10, 5, 0]


def test_a_scan_makes_redis_expire_keys_and_publish_each_event_once(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.join("bob", ttl=90_000)
        probe.expire("ann")
        probe.received()
        assert probe.due()[3] == [b"lobby:user:ann"]
        assert probe.received().expired == [probe.presence_key("ann")]
        assert probe.due()[3] == [], "it comes up again after the retry"
        assert probe.received().expired == []


def test_an_unclaimed_expired_member_does_not_delay_other_members_of_the_room(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.join("bob", ttl=90_000)
        probe.join("cy", ttl=61_000)
        probe.expire("ann")
        _, following, _, gone = probe.due(retry=120_000)
        assert gone == [b"lobby:user:ann"]
        assert following == probe.stored_deadline("cy"), "cy's time comes before the retry for ann"


def test_a_member_that_expires_during_a_scan_is_scanned_again_at_once(
    redis7_server: Server,
) -> None:
    """Redis 7.0 freezes the life of keys at a script's start, and not its TIME. Later servers freeze both."""
    if not servers.is_redis_before(redis7_server.kind, 7, 2):
        pytest.skip("since Redis 7.2, and in Valkey, TIME does not go on during a script")
    with probing(redis7_server) as probe:
        probe.join("ann")
        deadline = probe.now() + 300
        probe.client.pexpireat(probe.presence_key("ann"), deadline)
        probe.client.zadd(probe.members_key(), {"ann": deadline})
        probe.client.zadd(probe.key("rooms"), {"lobby": deadline})
        source = probe.runner.source("due")
        first, _, rest = source.partition("\n")
        spin = (
            "local spun\n"
            "repeat spun = redis.call('TIME')\n"
            f"until spun[1] * 1e6 + spun[2] > {deadline + 20} * 1e3\n"
        )
        slow = probe.client.register_script(
            f"{first}\n{spin}{rest}" if first.startswith("#!") else spin + source
        )
        probe.client.script_load(slow.script)
        prefix = probe.key("x").removesuffix(":x")
        now, following, moved, gone = slow(keys=[prefix], args=[1000, 250, probe.runner.run_id])
        assert now > deadline, "TIME went on"
        assert (moved, gone) == (1, []), "its key was still alive"
        assert following <= now + 250, "and it comes up again at once, not a minute later"
        found = until_blocking(lambda: probe.due()[3], what="its row is examined in the next millisecond")
        assert found == [b"lobby:user:ann"]


def test_thousands_of_members_that_expire_at_once_are_each_claimed_once(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(3 * MAX_ROWS)]
        probe.join_many(users)
        probe.expire(*users)
        probe.received()
        shard, claimed = shard_of("lobby"), []
        for _ in range(10):
            found = done(probe.store.due(shard, limit=MAX_ROWS, retry=0))
            claimed += done(probe.store.claim(shard, found.gone))
            probe.advance_clock()
            if len(claimed) == len(users):
                break
        assert sorted(one.suffix for one in claimed) == sorted(f"lobby:user:{user}" for user in users)
        received = probe.received()
        assert len(received.expired) == len(users)
        assert sum(len(row.left) for _, row in received.diffs) == len(users)
        assert done(probe.store.due(shard, limit=MAX_ROWS, retry=0)).next_deadline is None


def test_a_claim_returns_its_lateness(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.expire("ann")
        stored = probe.stored_deadline("ann")
        now, _, _, deadline = probe.claim("ann")
        assert int(deadline) == stored
        assert now >= stored


def test_one_claim_of_members_of_several_rooms_publishes_one_diff_a_room(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        rooms = [room for n in range(99) if shard_of(room := f"room {n}") == shard_of("lobby")][:2]
        for room in ("lobby", *rooms):
            probe.join("ann", room=room)
            probe.join("bob", room=room)
            probe.expire("ann", "bob", room=room)
        probe.received()
        suffixes = [
            f"{room.replace(' ', '%20')}:user:{user}" for user in ("ann", "bob") for room in ("lobby", *rooms)
        ]
        claimed = done(probe.store.claim(shard_of("lobby"), suffixes))
        assert sorted(one.suffix for one in claimed) == sorted(suffixes)
        assert sorted(room for room, _ in probe.received().diffs) == sorted(["lobby", *rooms])


def test_a_key_made_permanent_externally_is_rechecked_until_it_has_an_expiry(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.client.persist(probe.presence_key("ann"))
        for _ in range(3):
            probe.pass_time(TTL + 1)
            now, following, moved, gone = probe.due()
            assert (moved, gone) == (1, [])
            assert following == now + EMPTY_ROOM_TTL
        probe.refresh("ann")
        probe.pass_time(EMPTY_ROOM_TTL)
        assert probe.due()[2:] == [1, []]
        probe.pass_time(TTL)
        assert probe.due()[3] == [b"lobby:user:ann"]
        probe.claim("ann")
