"""The scripts by which members end, each on its own: claim, and due, the pacemaker's look."""

from reactor.presence.keys import shard_of
from tests.redis.presence.cases import Case, check, each, probing
from tests.redis.presence.probe import BATCH, LINGER, TTL
from tests.redis.presence.steps import (
    detaches,
    joins,
    lapses,
    loses_presence,
    loses_shadow,
    passes,
)
from tests.support.servers import Server
from tests.support.stores import done

ANN = ["ann n1.1 | ttl"]

CLAIM = [
    Case("nobody named", [joins("ann")], lambda p: p.claim(), ["now"], [], ANN),
    Case("never there", [], lambda p: p.claim("ann"), ["now"]),
    Case("alive", [joins("ann"), passes(5)], lambda p: p.claim("ann"), ["now"], [], ["ann n1.1 | ttl-5s"]),
    Case("lapsed", [joins("ann"), joins("bob"), lapses("ann")], lambda p: p.claim("ann")[:3],
         ["now", "lobby/ann", "inactivity_timeout"], ["2>3 (1) -ann:inactivity_timeout"], ["bob n1.1 | ttl"],
         ["ann:inactivity_timeout"]),
    Case("grace over", [joins("ann"), detaches("ann"), lapses("ann")], lambda p: p.claim("ann")[:3],
         ["now", "lobby/ann", "disconnected"], ["1>2 (0) -ann:disconnected"], [], ["ann:disconnected"]),
    Case("lapsed with a socket still here: idle, and not disconnected",
         [joins("ann"), joins("ann", "n1.2"), detaches("ann"), lapses("ann")], lambda p: p.claim("ann")[:3],
         ["now", "lobby/ann", "inactivity_timeout"], ["3>4 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("lapsed after it came back from a grace", [joins("ann"), detaches("ann"), joins("ann"),
         lapses("ann")],
         lambda p: p.claim("ann")[:3], ["now", "lobby/ann", "inactivity_timeout"],
         ["1>2 (0) -ann:inactivity_timeout"], [], ["ann:inactivity_timeout"]),
    Case("twice", [joins("ann"), lapses("ann"), lambda p: p.claim("ann")], lambda p: p.claim("ann"), ["now"]),
    Case("named twice in one call", [joins("ann"), lapses("ann")],
         lambda p: [len(p.claim("ann", "ann"))], [4], ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("came again meanwhile", [joins("ann"), lapses("ann"), joins("ann")], lambda p: p.claim("ann"),
         ["now"], [],
         ANN),
    Case("several, some alive", [joins("ann"), joins("bob"), joins("cy"), lapses("ann"), lapses("cy")],
         lambda p: p.claim("ann", "bob", "cy")[1::3], ["lobby/ann", "lobby/cy"],
         ["3>5 (1) -ann:inactivity_timeout -cy:inactivity_timeout"], ["bob n1.1 | ttl"],
         ["ann:inactivity_timeout", "cy:inactivity_timeout"]),
    Case("deleted by hand", [joins("ann"), loses_presence("ann")], lambda p: p.claim("ann")[1:3],
         ["lobby/ann", "inactivity_timeout"], ["1>2 (0) -ann:inactivity_timeout"], [],
         ["ann:inactivity_timeout"]),
    Case("both keys deleted by hand", [joins("ann"), loses_presence("ann"), loses_shadow("ann")],
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
    Case("one lapsed", [joins("ann"), lapses("ann")], lambda p: p.due(retry=20_000),
         ["now", "now+20s", 0, ["lobby/ann"]], [], ["ann n1.1 | gone"]),
    Case("a grace over", [joins("ann"), joins("bob"), detaches("ann"), lapses("ann")],
         lambda p: p.due(retry=20_000),
         ["now", "now+20s", 0, ["lobby/ann"]], [], ["ann | gone r=disconnected", "bob n1.1 | ttl"]),
    Case("a refresh after the detaching: the noted end is no end",
         [joins("ann", away=1), detaches("ann"), joins("ann"), passes(31)],
         lambda p: p.due(), ["now", "now+ttl-31s", 1, []], [], ["ann n1.1:away | ttl-31s away"]),
]  # fmt: skip


@each(CLAIM)
def test_claim(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(DUE)
def test_due(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


def test_after_a_look_nothing_is_due_that_is_alive(redis_server: Server) -> None:
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


def test_a_look_goes_through_no_more_rows_than_it_is_told_and_the_next_goes_on(redis_server: Server) -> None:
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


def test_a_look_makes_redis_end_the_lapsed_and_say_so_once(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.join("bob", ttl=90_000)
        probe.lapse("ann")
        probe.hear()
        assert probe.due()[3] == [b"lobby:user:ann"]
        assert probe.hear().expired == [probe.presence_key("ann")]
        assert probe.due()[3] == [], "it comes up again after the retry"
        assert probe.hear().expired == []


def test_one_that_lapsed_and_is_not_claimed_yet_keeps_nobody_else_in_the_room_waiting(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.join("bob", ttl=90_000)
        probe.join("cy", ttl=61_000)
        probe.lapse("ann")
        _, following, _, gone = probe.due(retry=120_000)
        assert gone == [b"lobby:user:ann"]
        assert following == probe.noted("cy"), "cy's time comes before the retry for ann"


def test_a_member_whose_time_is_up_while_the_script_runs_is_looked_at_again_at_once(
    redis7_server: Server,
) -> None:
    """Redis 7.0 freezes the life of keys at a script's start, and not its TIME."""
    with probing(redis7_server) as probe:
        probe.join("ann")
        deadline = probe.now() + 30
        probe.client.pexpireat(probe.presence_key("ann"), deadline)
        probe.client.zadd(probe.members_key(), {"ann": deadline})
        probe.client.zadd(probe.key("rooms"), {"lobby": deadline})
        source = probe.runner.source("due")
        first, _, rest = source.partition("\n")
        spin = (
            "local started, spun = redis.call('TIME')\n"
            "repeat spun = redis.call('TIME')\n"
            "until spun[1] * 1e6 + spun[2] > started[1] * 1e6 + started[2] + 50000\n"
        )
        slow = probe.client.register_script(
            f"{first}\n{spin}{rest}" if first.startswith("#!") else spin + source
        )
        prefix = probe.key("x").removesuffix(":x")
        now, following, moved, gone = slow(keys=[prefix], args=[1000, 250])
        assert now > deadline, "TIME went on"
        assert (moved, gone) == (1, []), "its key was still alive"
        assert following <= now + 250, "and it comes up again at once, not a minute later"
        assert probe.due()[3] == [b"lobby:user:ann"]


def test_all_of_thousands_that_lapsed_at_once_are_found_and_claimed_once(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(3 * BATCH)]
        probe.join_many(users)
        probe.lapse(*users)
        probe.hear()
        shard, claimed = shard_of("lobby"), []
        for _ in range(10):
            found = done(probe.store.due(shard, limit=BATCH, retry=0))
            claimed += done(probe.store.claim(shard, found.gone))
            probe.sleep()
            if len(claimed) == len(users):
                break
        assert sorted(one.suffix for one in claimed) == sorted(f"lobby:user:{user}" for user in users)
        heard = probe.hear()
        assert len(heard.expired) == len(users)
        assert sum(len(row.left) for _, row in heard.diffs) == len(users)
        assert done(probe.store.due(shard, limit=BATCH, retry=0)).next_deadline is None


def test_a_claim_says_how_late_it_came(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.lapse("ann")
        noted = probe.noted("ann")
        now, _, _, deadline = probe.claim("ann")
        assert int(deadline) == noted
        assert now >= noted


def test_members_of_several_rooms_are_claimed_in_one_call_with_a_diff_for_each_room(
    redis_server: Server,
) -> None:
    with probing(redis_server) as probe:
        rooms = [room for n in range(99) if shard_of(room := f"room {n}") == shard_of("lobby")][:2]
        for room in ("lobby", *rooms):
            probe.join("ann", room=room)
            probe.join("bob", room=room)
            probe.lapse("ann", "bob", room=room)
        probe.hear()
        suffixes = [
            f"{room.replace(' ', '%20')}:user:{user}" for user in ("ann", "bob") for room in ("lobby", *rooms)
        ]
        claimed = done(probe.store.claim(shard_of("lobby"), suffixes))
        assert sorted(one.suffix for one in claimed) == sorted(suffixes)
        assert sorted(room for room, _ in probe.hear().diffs) == sorted(["lobby", *rooms])


def test_a_life_made_permanent_is_looked_at_now_and_then_until_it_has_an_end(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.client.persist(probe.presence_key("ann"))
        for _ in range(3):
            probe.pass_time(TTL + 1)
            now, following, moved, gone = probe.due()
            assert (moved, gone) == (1, [])
            assert following == now + LINGER
        probe.refresh("ann")
        probe.pass_time(LINGER)
        assert probe.due()[2:] == [1, []]
        probe.pass_time(TTL)
        assert probe.due()[3] == [b"lobby:user:ann"]
        probe.claim("ann")
