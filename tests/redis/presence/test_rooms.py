"""The scripts about rooms: list, count, list_rooms; and a room's version, stream and totals."""

import msgspec
import pytest

from reactor.presence.keys import escape
from reactor.presence.rows import members_from_flat
from tests.redis.presence.cases import Case, check, each, plain, probing
from tests.redis.presence.probe import HOSTILE, MAX_ROWS, TTL, Probe
from tests.redis.presence.steps import Step, detaches, expires, joins, leaves, loses_presence, passes
from tests.support.keyspace import SHARDS, shard_of, shard_prefix
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, done

EXPIRED_DIFF = ["1>2 (0) -ann:inactivity_timeout"]

COUNT = [
    Case("a room without members ever", [], lambda p: p.in_room("count"), ["now", "", 0, 0]),
    Case("two", [joins("ann"), joins("bob")], lambda p: p.in_room("count"), ["now", "epoch", 2, 2], [],
         ["ann n1.1 | ttl", "bob n1.1 | ttl"]),
    Case("one in the grace", [joins("ann"), detaches("ann")], lambda p: p.in_room("count"), ["now", "epoch",
         1, 1],
         [], ["ann | grace r=disconnected"]),
    Case("one expired", [joins("ann"), expires("ann")], lambda p: p.in_room("count"),
         ["now", "epoch", 2, 0], EXPIRED_DIFF, [], ["ann:inactivity_timeout"]),
    Case("one whose grace has expired", [joins("ann"), detaches("ann"), expires("ann")],
         lambda p: p.in_room("count"),
         ["now", "epoch", 2, 0], ["1>2 (0) -ann:disconnected"], [], ["ann:disconnected"]),
    Case("one renewed past its stored deadline", [joins("ann"), passes(5), lambda p: p.refresh("ann"),
                                                    passes(58)],
         lambda p: p.in_room("count"), ["now", "epoch", 1, 1], [], ["ann n1.1 | ttl-58s"]),
    Case("all left a moment ago", [joins("ann"), leaves("ann")], lambda p: p.in_room("count"),
         ["now", "epoch", 2, 0]),
]  # fmt: skip

LIST = [
    Case("a room without members ever", [], lambda p: p.in_room("list", "lobby", 0, 10), ["now", "", 0, 0,
         "0"]),
    Case("one", [joins("ann", username="A", data="[1]", away=1)], lambda p: p.in_room("list", "lobby", 0, 10),
         ["now", "epoch", 1, 1, "0", "ann", "A", "[1]", "now", "now", 1, 1], [],
         ["ann n1.1:away | ttl away username=A data=[1]"]),
    Case("one expired", [joins("ann"), expires("ann")], lambda p: p.in_room("list", "lobby", 0, 10),
         ["now", "epoch", 2, 0, "0"], EXPIRED_DIFF, [], ["ann:inactivity_timeout"]),
    Case("one deleted externally is not listed", [joins("ann"), loses_presence("ann")],
         lambda p: p.in_room("list", "lobby", 0, 10)[5:], [], [], ["ann n1.1 | gone"]),
]  # fmt: skip


@each(COUNT)
def test_count(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(LIST)
def test_list(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@pytest.mark.parametrize("script", ["count", "list"])
def test_thousands_of_expired_members_are_settled_before_the_answer(
    redis_server: Server, script: str
) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(MAX_ROWS + 1)]
        probe.join_many(users)
        probe.join("ann", ttl=90_000)
        probe.expire(*users)
        args = ("0", "10") if script == "list" else ()
        assert probe.in_room(script, "lobby", *args) == [b"again"]
        reply = probe.in_room(script, "lobby", *args)
        assert reply[2:4] == [2 * MAX_ROWS + 3, 1]
        assert probe.totals() == {"inactivity_timeout": MAX_ROWS + 1}
        assert done(probe.store.rooms(shard_of("lobby"))) == {"lobby": 1}


def test_the_rooms_of_a_shard_are_counted_exactly(redis_server: Server) -> None:
    with probing(redis_server, ids=HOSTILE) as probe:
        near = _rooms_of_the_lobbys_shard(probe.id("lobby"), 150)
        for number, room in enumerate(near):
            for user in range(1 + number % 3):
                probe.join(f"u{user}", room=room)
        probe.join("ann")
        probe.expire("u0", room=near[0])
        expected = {room: 1 + number % 3 for number, room in enumerate(near)} | {probe.id("lobby"): 1}
        del expected[near[0]]
        assert done(probe.store.rooms(shard_of(probe.id("lobby")))) == expected


def test_a_shards_rooms_are_exact_when_thousands_of_members_have_expired(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(2 * MAX_ROWS + 1)]
        probe.join_many(users)
        probe.join("ann", ttl=90_000)
        probe.expire(*users)
        assert done(probe.store.rooms(shard_of("lobby"))) == {"lobby": 1}


def test_a_large_room_is_listed_in_pages_while_it_changes(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join_many(f"stays{number}" for number in range(1000))
        probe.join_many(f"goes{number}" for number in range(1000))
        seen: list[str] = []
        cursor: bytes | int = 0
        pages, first = 0, (0, 0)
        while cursor != b"0":
            _, _, version, count, cursor, *flat = probe.in_room("list", "lobby", cursor, 100)
            if pages == 0:
                first = version, count
            seen += [member.user_id for member in members_from_flat(flat)]
            for number in range(10 * pages, 10 * pages + 10):
                probe.ask("leave", f"goes{number}", f"n1.{number}")
                probe.join(f"comes{number}")
            pages += 1
        assert first == (2000, 2000)
        assert pages > 10
        assert {f"stays{number}" for number in range(1000)} <= set(seen)
        listing = done(probe.store.members("lobby"))
        assert len(listing.members) == listing.position.count == 2000
        assert len({member.user_id for member in listing.members}) == 2000


def test_a_later_page_omits_members_that_expired_meanwhile(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(300)]
        probe.join_many(users)
        _, _, _, _, cursor, *flat = probe.in_room("list", "lobby", 0, 100)
        assert cursor != b"0"
        listed = {member.user_id for member in members_from_flat(flat)}
        probe.expire(*users)
        while cursor != b"0":
            _, _, _, _, cursor, *flat = probe.in_room("list", "lobby", cursor, 100)
            assert flat == []
        assert listed < set(users)


def test_each_change_advances_the_version_by_one_a_member(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        for user in ("ann", "bob", "cy"):
            probe.join(user)
        probe.expire("ann", "bob", "cy")
        probe.in_room("count")
        received = probe.received()
        assert received.changes[-1] == (
            "3>6 (0) -ann:inactivity_timeout -bob:inactivity_timeout -cy:inactivity_timeout"
        )
        assert probe.version() == 6


def test_a_room_state_deleted_externally_never_hides_members(redis_server: Server) -> None:
    """A diff from version 0 of a new epoch means that the room was empty before."""
    with probing(redis_server) as probe:
        probe.join("ann")
        former = probe.epoch()
        probe.client.delete(probe.state_key())
        probe.received()
        probe.join("bob")
        (_, row), *_ = probe.received().diffs
        assert row.epoch == probe.epoch() != former
        assert row.from_version > 0, "nodes that follow the room have to list it again"
        assert (row.version, row.count) == (probe.version(), 2)


def test_a_departure_is_recorded_with_all_fields(redis_server: Server) -> None:
    with probing(redis_server, ids=HOSTILE) as probe:
        _, joined_at, *_ = probe.join("ann", "n1.a", username="Ann É")
        probe.advance_clock()
        active_at, _ = probe.refresh("ann")
        probe.advance_clock()
        began = probe.now()
        probe.ask("leave", "ann", "n1.a")
        (departure,) = probe.departures()
        left_at = int(departure.pop("leftAt"))
        assert began <= left_at <= probe.now()
        assert departure == {
            "room": probe.id("lobby"), "user": probe.id("ann"), "username": "Ann É", "reason": "left",
            "joinedAt": str(joined_at), "lastActiveAt": str(active_at), "node": "n1",
        }  # fmt: skip


def test_the_departure_of_an_expired_member_has_the_activity_of_the_last_scan(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.advance_clock()
        active_at, _ = probe.refresh("ann", ttl=90_500)
        probe.pass_time(61_000)
        assert probe.due()[2] == 1, "a scan finds one living member"
        probe.expire("ann")
        probe.claim("ann")
        (departure,) = probe.departures()
        assert departure["lastActiveAt"] == str(active_at)
        assert departure["reason"] == "inactivity_timeout"


def is_suspended(probe: Probe) -> None:
    probe.on_shard("mark_shard_alive", "lobby", 5000, "", 0)
    probe.expire("ann")
    probe.client.hincrby(probe.key("pulse"), "at", -5001)


def is_suspended_no_more(probe: Probe) -> None:
    probe.client.delete(probe.key("pulse"))


def beats_with_another_ttl(probe: Probe) -> None:
    probe.refresh("ann", ttl=TTL - 500)


def the_clock_goes_back(probe: Probe) -> None:
    probe.refresh("ann", ttl=TTL + 500)
    probe.in_room("follow_clock", "lobby", 0, 100, 3_600_000, 1000)


def loses_its_row(probe: Probe) -> None:
    probe.refresh("ann")
    probe.client.zrem(probe.members_key(), escape(probe.id("ann")))
    probe.on_shard(
        "audit_connections", "lobby", "n1", escape(probe.id("lobby")), escape(probe.id("ann")), "n1.1"
    )


def is_lost_and_registered_again(probe: Probe) -> None:
    joined_at, epoch = probe.joined_at("ann"), probe.epoch()
    probe.client.flushall()
    probe.join("ann", epoch=epoch, joined_at=joined_at)


@pytest.mark.parametrize(
    "steps",
    [
        (is_suspended, joins("ann"), is_suspended_no_more),
        (beats_with_another_ttl,),
        (the_clock_goes_back,),
        (loses_its_row,),
        (is_lost_and_registered_again,),
    ],
)
def test_who_is_silent_from_an_exact_deadline_on_was_active_until_then(
    redis_server: Server, steps: tuple[Step, ...]
) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.advance_clock()
        for step in steps:
            step(probe)
        assert probe.stored_deadline("ann") == probe.expires_at("ann"), "no scan comes between"
        active_at = int(probe.presence("ann")["lastActiveAt"])
        probe.expire("ann")
        probe.claim("ann")
        (departure,) = probe.departures()
        assert int(departure["lastActiveAt"]) == active_at > int(departure["joinedAt"])


def test_the_stream_is_capped_and_the_totals_are_not(redis_server: Server) -> None:
    with probing(redis_server, departures_kept=100) as probe:
        for number in range(500):
            probe.join("ann")
            probe.ask("leave" if number % 5 else "kick", "ann", *(("n1.1",) if number % 5 else ("",)))
        assert 100 <= len(probe.departures()) <= 200  # a node of the stream holds up to 100 entries
        assert probe.totals() == {"left": 400, "kicked": 100}


def test_only_departures_totals_and_notes_for_an_hour_remain_of_an_emptied_room(redis_server: Server) -> None:
    with probing(redis_server, ids=HOSTILE) as probe:
        for user in ("ann", "bob", "cy"):
            probe.join(user, "n1.1")
            probe.join(user, "n2.1")
        probe.ask("kick", "ann", "")
        probe.expire("bob")
        probe.claim("bob")
        probe.detach("cy", "n1.1", grace=0)
        probe.detach("cy", "n2.1", grace=0)
        notes = {probe.removal_key("ann"), probe.removal_key("bob")}
        assert probe.keys() == {probe.key("departures"), probe.key("totals"), probe.state_key()} | notes
        probe.pass_time(60_000)
        assert probe.keys() == {probe.key("departures"), probe.key("totals")} | notes
        probe.pass_time(3_600_000)
        assert probe.keys() == {probe.key("departures"), probe.key("totals")}


def test_a_published_diff_has_all_fields_of_a_member(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        reply = probe.join("ann", username="A", data='{"x":1}', away=1)
        ((room_id, row),) = probe.received().diffs
        now = reply[1]
        assert room_id == "lobby"
        assert msgspec.to_builtins(row) == [
            probe.epoch(), 0, 1, 1, [["ann", "A", '{"x":1}', now, now, 1, 1]], [], [],
        ]  # fmt: skip
        assert plain(probe, reply, now, now, [reply[6]])[6] == "diff"


def _rooms_of_the_lobbys_shard(lobby: str, number: int) -> list[str]:
    prefix = shard_prefix(NAMESPACE, shard_of(lobby))
    found = (f"room {n}" for n in range(number * SHARDS * 4))
    return [room for room in found if shard_prefix(NAMESPACE, shard_of(room)) == prefix][:number]
