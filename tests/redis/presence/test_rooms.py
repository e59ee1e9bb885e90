"""What a room answers, each script on its own: list, count, rooms; and its position, stream and totals."""

import msgspec
import pytest

from reactor.presence.keys import SHARDS, shard_of, shard_prefix
from reactor.presence.rows import members_from_flat
from tests.redis.presence.cases import Case, check, each, plain, probing
from tests.redis.presence.probe import BATCH, HOSTILE
from tests.redis.presence.steps import detaches, joins, lapses, leaves, loses_presence, passes
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, done

TOLD_GONE = ["1>2 (0) -ann:inactivity_timeout"]

COUNT = [
    Case("a room where nobody ever was", [], lambda p: p.in_room("count"), ["now", "", 0, 0]),
    Case("two", [joins("ann"), joins("bob")], lambda p: p.in_room("count"), ["now", "epoch", 2, 2], [],
         ["ann n1.1 | ttl", "bob n1.1 | ttl"]),
    Case("one in the grace", [joins("ann"), detaches("ann")], lambda p: p.in_room("count"), ["now", "epoch",
         1, 1],
         [], ["ann | grace r=disconnected"]),
    Case("one whose time is up", [joins("ann"), lapses("ann")], lambda p: p.in_room("count"),
         ["now", "epoch", 2, 0], TOLD_GONE, [], ["ann:inactivity_timeout"]),
    Case("one whose grace is over", [joins("ann"), detaches("ann"), lapses("ann")],
         lambda p: p.in_room("count"),
         ["now", "epoch", 2, 0], ["1>2 (0) -ann:disconnected"], [], ["ann:disconnected"]),
    Case("one kept alive past its noted deadline", [joins("ann"), passes(5), lambda p: p.refresh("ann"),
                                                    passes(58)],
         lambda p: p.in_room("count"), ["now", "epoch", 1, 1], [], ["ann n1.1 | ttl-58s"]),
    Case("all left a moment ago", [joins("ann"), leaves("ann")], lambda p: p.in_room("count"),
         ["now", "epoch", 2, 0]),
]  # fmt: skip

LIST = [
    Case("a room where nobody ever was", [], lambda p: p.in_room("list", "lobby", 0, 10), ["now", "", 0, 0,
         "0"]),
    Case("one", [joins("ann", username="A", data="[1]", away=1)], lambda p: p.in_room("list", "lobby", 0, 10),
         ["now", "epoch", 1, 1, "0", "ann", "A", "[1]", "now", "now", 1, 1], [],
         ["ann n1.1:away | ttl away username=A data=[1]"]),
    Case("one whose time is up", [joins("ann"), lapses("ann")], lambda p: p.in_room("list", "lobby", 0, 10),
         ["now", "epoch", 2, 0, "0"], TOLD_GONE, [], ["ann:inactivity_timeout"]),
    Case("one deleted by hand is not listed", [joins("ann"), loses_presence("ann")],
         lambda p: p.in_room("list", "lobby", 0, 10)[5:], [], [], ["ann n1.1 | gone"]),
]  # fmt: skip


@each(COUNT)
def test_count(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@each(LIST)
def test_list(redis_server: Server, case: Case, ids: dict[str, str] | None) -> None:
    check(redis_server, case, ids)


@pytest.mark.parametrize("script", ["count", "list"])
def test_thousands_that_lapsed_at_once_are_settled_before_the_answer(
    redis_server: Server, script: str
) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(BATCH + 1)]
        probe.join_many(users)
        probe.join("ann", ttl=90_000)
        probe.lapse(*users)
        args = ("0", "10") if script == "list" else ()
        assert probe.in_room(script, "lobby", *args) == [b"again"]
        reply = probe.in_room(script, "lobby", *args)
        assert reply[2:4] == [2 * BATCH + 3, 1]
        assert probe.totals() == {"inactivity_timeout": BATCH + 1}
        assert done(probe.store.rooms(shard_of("lobby"))) == {"lobby": 1}


def test_the_rooms_of_a_shard_are_counted_exactly(redis_server: Server) -> None:
    with probing(redis_server, ids=HOSTILE) as probe:
        near = _rooms_of_the_lobbys_shard(probe.id("lobby"), 150)
        for number, room in enumerate(near):
            for user in range(1 + number % 3):
                probe.join(f"u{user}", room=room)
        probe.join("ann")
        probe.lapse("u0", room=near[0])
        expected = {room: 1 + number % 3 for number, room in enumerate(near)} | {probe.id("lobby"): 1}
        del expected[near[0]]
        assert done(probe.store.rooms(shard_of(probe.id("lobby")))) == expected


def test_a_shards_rooms_are_exact_when_thousands_have_lapsed_in_one_of_them(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(2 * BATCH + 1)]
        probe.join_many(users)
        probe.join("ann", ttl=90_000)
        probe.lapse(*users)
        assert done(probe.store.rooms(shard_of("lobby"))) == {"lobby": 1}


def test_a_large_room_is_listed_by_pages_while_it_changes(redis_server: Server) -> None:
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


def test_a_page_after_the_first_leaves_out_who_has_lapsed_meanwhile(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        users = [f"u{number}" for number in range(300)]
        probe.join_many(users)
        _, _, _, _, cursor, *flat = probe.in_room("list", "lobby", 0, 100)
        assert cursor != b"0"
        listed = {member.user_id for member in members_from_flat(flat)}
        probe.lapse(*users)
        while cursor != b"0":
            _, _, _, _, cursor, *flat = probe.in_room("list", "lobby", cursor, 100)
            assert flat == []
        assert listed < set(users)


def test_each_change_moves_the_version_by_one_for_each_member_it_concerns(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        for user in ("ann", "bob", "cy"):
            probe.join(user)
        probe.lapse("ann", "bob", "cy")
        probe.in_room("count")
        heard = probe.hear()
        assert heard.told[-1] == (
            "3>6 (0) -ann:inactivity_timeout -bob:inactivity_timeout -cy:inactivity_timeout"
        )
        assert probe.version() == 6


def test_a_position_deleted_by_hand_never_hides_who_is_there(redis_server: Server) -> None:
    """A diff of a new epoch from 0 on says that the room was empty before it."""
    with probing(redis_server) as probe:
        probe.join("ann")
        former = probe.epoch()
        probe.client.delete(probe.state_key())
        probe.hear()
        probe.join("bob")
        (_, row), *_ = probe.hear().diffs
        assert row.epoch == probe.epoch() != former
        assert row.from_version > 0, "whoever follows the room has to ask for the whole list"
        assert (row.version, row.count) == (probe.version(), 2)


def test_a_departure_is_on_record_with_all_of_these(redis_server: Server) -> None:
    with probing(redis_server, ids=HOSTILE) as probe:
        _, joined_at, *_ = probe.join("ann", "n1.a", username="Ann É")
        probe.sleep()
        active_at, _ = probe.refresh("ann")
        probe.sleep()
        began = probe.now()
        probe.ask("leave", "ann", "n1.a")
        (departure,) = probe.departures()
        left_at = int(departure.pop("leftAt"))
        assert began <= left_at <= probe.now()
        assert departure == {
            "room": probe.id("lobby"), "user": probe.id("ann"), "username": "Ann É", "reason": "left",
            "joinedAt": str(joined_at), "lastActiveAt": str(active_at), "node": "n1",
        }  # fmt: skip


def test_the_record_of_a_lapsed_member_has_what_the_last_look_noted(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        probe.join("ann")
        probe.sleep()
        active_at, _ = probe.refresh("ann", ttl=90_500)
        probe.pass_time(61_000)
        assert probe.due()[2] == 1, "a look at a living member"
        probe.lapse("ann")
        probe.claim("ann")
        (departure,) = probe.departures()
        assert departure["lastActiveAt"] == str(active_at)
        assert departure["reason"] == "inactivity_timeout"


def test_the_stream_keeps_about_as_many_as_it_is_told_and_the_totals_count_all(redis_server: Server) -> None:
    with probing(redis_server, departures_kept=100) as probe:
        for number in range(500):
            probe.join("ann")
            probe.ask("leave" if number % 5 else "kick", "ann", *(("n1.1",) if number % 5 else ("",)))
        assert 100 <= len(probe.departures()) <= 200  # a node of the stream holds up to 100 entries
        assert probe.totals() == {"left": 400, "kicked": 100}


def test_only_what_lasts_is_left_when_all_have_gone(redis_server: Server) -> None:
    with probing(redis_server, ids=HOSTILE) as probe:
        for user in ("ann", "bob", "cy"):
            probe.join(user, "n1.1")
            probe.join(user, "n2.1")
        probe.ask("kick", "ann", "")
        probe.lapse("bob")
        probe.claim("bob")
        probe.detach("cy", "n1.1", grace=0)
        probe.detach("cy", "n2.1", grace=0)
        assert probe.keys() == {probe.key("departures"), probe.key("totals"), probe.state_key()}
        probe.pass_time(60_000)
        assert probe.keys() == {probe.key("departures"), probe.key("totals")}


def test_what_is_published_is_what_a_view_needs(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        reply = probe.join("ann", username="A", data='{"x":1}', away=1)
        ((room_id, row),) = probe.hear().diffs
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
