"""On one server the scripts that make a join, a leave or a claim change the record of the user as well."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from reactor.presence.keys import Entry, suffix
from reactor.presence.people import PAGE, PeopleStore, PersonRecord, _record, decode_person_change
from reactor.presence.replies import JoinRefused
from reactor.presence.store import Store
from tests.support.keyspace import keyspace
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, Direct, DirectRunner, done

TTL = 60_000
KEPT = 3_600_000
ROOMS = ("lobby", "hall", "den")


class People:
    """A store whose scripts change the index, and what is published of ann."""

    def __init__(self, server: Server) -> None:
        self.direct = Direct(server)
        self.store, self.keys = self.direct.store, self.direct.store.keys
        self.store.last_seen_kept = KEPT
        self.index = PeopleStore(self.direct.runner, self.keys)
        self._channel = self.direct.client.pubsub(ignore_subscribe_messages=True)
        self._channel.subscribe(self.index.channel("ann"))
        self._channel.get_message(timeout=5.0)

    def join(self, room: str, number: int = 1, **terms: Any) -> Any:
        given: dict[str, Any] = {"ttl": TTL, "person": f"t-{room}-{number}", **terms}
        return done(self.store.join(Entry(room, "ann"), f"n1.{number:x}", **given))

    def leave(self, room: str, number: int = 1) -> str:
        return done(self.store.leave(Entry(room, "ann"), f"n1.{number:x}"))

    def expire(self, *rooms: str) -> None:
        for room in rooms:
            self.direct.client.delete(self.keys.presence_key(Entry(room, "ann")))

    def claim(self, *rooms: str) -> int:
        """Claim ann in rooms of one shard."""
        (shard,) = {self.keys.shard_of(room) for room in rooms}
        return len(done(self.store.claim(shard, [suffix(Entry(room, "ann")) for room in rooms])))

    def record(self) -> PersonRecord:
        raw = done(self.direct.runner.run("read_people", self.keys.prefix_of("ann"), "ann"))
        return _record(raw[0])

    def exits(self) -> list[str]:
        keys: list[Any] = self.direct.client.keys("*}:exits")
        values: list[Any] = [value for key in keys for value in self.direct.client.hvals(key)]
        return [value.decode() for value in values]

    def published(self) -> list[tuple[str, str]]:
        found = []
        self.direct.client.publish(self.index.channel("ann"), b"end")
        while (message := self._channel.get_message(timeout=5.0)) is None or message["data"] != b"end":
            if message is not None:
                change = decode_person_change(message["data"])
                found.append((change.status, change.room))
        return found

    def kept_keys(self) -> list[Any]:
        return [
            key for kind in ("person", "people", "exits") for key in self.direct.client.keys(f"*}}:{kind}*")
        ]


def rooms_of_one_shard(count: int) -> list[str]:
    keys = keyspace(NAMESPACE)
    shard = keys.shard_of("room 0")
    names = (f"room {number}" for number in range(1000))
    return [name for name in names if keys.shard_of(name) == shard][:count]


def test_a_join_counts_at_once_and_a_leave_ends_it_with_no_call_of_the_index(redis_server: Server) -> None:
    it = People(redis_server)
    for room in ROOMS:
        assert it.join(room).diff
    record = it.record()
    assert (record.rooms, record.joining) == ({room: f"t-{room}-1" for room in ROOMS}, frozenset())
    assert record.status == "online"
    for room in ROOMS:
        assert it.leave(room) == "left"
    assert it.record().last_seen
    assert it.kept_keys() == []
    assert it.published() == [
        ("online", "+lobby"), ("online", "+hall"), ("online", "+den"),
        ("online", "-lobby"), ("online", "-hall"), ("offline", "-den"),
    ]  # fmt: skip
    (seen,) = it.direct.client.keys("*}:seen")
    assert 0 < it.direct.client.pttl(seen) <= KEPT


def test_claims_of_several_rooms_of_a_user_are_taken_in_each_with_the_status_after_it(
    redis_server: Server,
) -> None:
    it = People(redis_server)
    rooms = rooms_of_one_shard(3)
    for room in rooms:
        it.join(room)
    it.published()
    it.expire(*rooms)
    assert it.claim(*rooms[:2]) == 2
    assert it.claim(*rooms) == 1
    assert it.claim(*rooms) == 0
    assert [status for status, _ in it.published()] == ["online", "online", "offline"]
    assert it.kept_keys() == []


def test_a_join_that_is_refused_leaves_nothing_in_the_record(redis_server: Server) -> None:
    it = People(redis_server)
    done(it.store.join(Entry("lobby", "bob"), "n1.2", ttl=TTL))
    assert isinstance(it.join("lobby", max_members=1), JoinRefused)
    assert it.kept_keys() == []
    assert it.published() == []


def test_a_further_connection_and_a_return_keep_the_room_and_its_away(redis_server: Server) -> None:
    it = People(redis_server)
    it.join("lobby", 1, away=True)
    assert it.record().status == "away"
    it.join("lobby", 2)
    assert it.record().status == "online"
    assert it.leave("lobby", 1) == "kept"
    assert it.leave("lobby", 2) == "left"
    assert it.published() == [("away", "+lobby"), ("online", ""), ("offline", "-lobby")]
    it.join("lobby", 3)
    done(it.store.detach(Entry("lobby", "ann"), "n1.3", grace=10_000, away_grace=10_000))
    it.join("lobby", 4)
    assert it.published() == [("online", "+lobby")]
    assert it.record().rooms == {"lobby": "t-lobby-4"}
    it.expire("lobby")
    assert it.claim("lobby") == 1
    assert it.published() == [("offline", "-lobby")]
    assert it.record().rooms == {}


def test_a_join_that_was_announced_before_counts_once(redis_server: Server) -> None:
    """A node of the former release adds the room first, and another confirms or joins."""
    it = People(redis_server)
    shard = it.keys.shard_of("ann")
    done(it.index._run("enter_people", shard, "ann", "lobby", "early"))
    assert it.record().status == "offline"
    it.join("lobby")
    assert it.record().joining == frozenset()
    assert done(it.index._run("correct_people", shard, "ann", "lobby", "t-lobby-1", "", 0)) == []
    it.leave("lobby")
    assert it.published() == [("online", "+lobby"), ("offline", "-lobby")]
    assert it.kept_keys() == []


@pytest.mark.parametrize("end", ["leave", "claim"])
def test_a_departure_whose_room_has_another_token_is_noted_and_not_lost(
    redis_server: Server, end: str
) -> None:
    it = People(redis_server)
    it.join("lobby")
    done(it.index._run("enter_people", it.keys.shard_of("ann"), "ann", "lobby", "other"))
    if end == "leave":
        it.leave("lobby")
    else:
        it.expire("lobby")
        it.claim("lobby")
    assert it.record().rooms == {"lobby": "other"}
    (exit_,) = it.exits()
    assert exit_.endswith(" t-lobby-1")


def test_the_departure_of_a_room_that_is_settled_by_a_join_ends_the_former_membership_alone(
    redis_server: Server,
) -> None:
    it = People(redis_server)
    it.join("lobby", 1)
    it.expire("lobby")
    it.join("lobby", 2)
    assert it.record().rooms == {"lobby": "t-lobby-2"}
    assert it.published() == [("online", "+lobby")]


@pytest.mark.parametrize("damage", ["person", "seen", "people"])
def test_a_damaged_key_of_a_user_in_another_shard_is_renamed_aside_there(
    redis_server: Server, damage: str
) -> None:
    it = People(redis_server)
    home = it.keys.prefix_of("ann")
    assert home != it.keys.prefix_of("lobby")
    key = f"{home}:person:ann" if damage == "person" else f"{home}:{damage}"
    it.join("lobby")
    it.direct.client.set(key, "damaged")
    wakes = it.direct.client.pubsub(ignore_subscribe_messages=True)
    wakes.subscribe(f"{home}:wake")
    wakes.get_message(timeout=5.0)
    it.leave("lobby")
    it.join("hall")
    assert it.direct.client.get(f"{home}:damaged:{key.removeprefix(home)[1:]}") == b"damaged"
    message = wakes.get_message(timeout=5.0)
    assert message is not None
    assert message["data"] == f"!{key.removeprefix(home)[1:]}".encode()
    assert it.record().rooms == {"hall": "t-hall-1"}


def test_a_member_with_a_name_that_is_no_text_is_claimed(redis_server: Server) -> None:
    it = People(redis_server)
    prefix = it.keys.prefix_of("lobby")
    it.direct.client.zadd(f"{prefix}:members:lobby", {b"\xff": 1})
    shard = it.keys.shard_of("lobby")
    (gone,) = done(it.store.claim(shard, ["lobby:user:\udcff"]))
    assert gone.suffix == "lobby:user:\udcff"


def ends_by_leave(store: Store) -> None:
    done(store.leave(Entry("lobby", "ann"), "n1.1"))


def ends_by_claim(store: Store) -> None:
    done(store.claim(store.keys.shard_of("lobby"), [suffix(Entry("lobby", "ann"))]))


def joins_another(store: Store) -> None:
    done(store.join(Entry("hall", "bob"), "n1.2", ttl=TTL, person="t-2"))


@pytest.mark.parametrize("change", [ends_by_leave, ends_by_claim, joins_another])
def test_who_lacks_a_right_writes_neither_the_membership_nor_the_record(
    redis_server: Server, change: Callable[[Store], None]
) -> None:
    admin = Direct(redis_server).client
    limited = redis.Redis(
        unix_socket_path=str(redis_server.socket), protocol=2, username="limited", password="x"
    )
    for right in ("hset", "hdel", "zadd", "zrem", "sadd", "srem", "del", "publish", "xadd"):
        admin.flushall()
        admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">x", "~*", "&*", "+@all")
        store = Store(DirectRunner(limited), keyspace(NAMESPACE))
        store.last_seen_kept = KEPT
        done(store.join(Entry("lobby", "ann"), "n1.1", ttl=TTL, person="t-1"))
        if change is ends_by_claim:
            admin.delete(store.keys.presence_key(Entry("lobby", "ann")))
        before = {key: admin.dump(key) for key in admin.keys("*")}
        admin.execute_command("ACL", "SETUSER", "limited", f"-{right}")
        if change is joins_another and right in {"srem", "del", "xadd"}:
            change(store)  # a join needs none of these
            continue
        with pytest.raises(redis.exceptions.ResponseError):
            change(store)
        assert {key: admin.dump(key) for key in admin.keys("*")} == before, right


def test_the_index_adds_few_commands_to_a_join_and_to_a_departure(redis_server: Server) -> None:
    it = People(redis_server)

    def commands_of(change: Callable[[], object]) -> int:
        it.direct.client.config_resetstat()
        change()
        stats = it.direct.client.info("commandstats")
        outside = {"cmdstat_config|resetstat", "cmdstat_info", "cmdstat_script|load", "cmdstat_eval"}
        return sum(figures["calls"] for name, figures in stats.items() if name not in outside)

    def cost(kept: int | None) -> tuple[int, int]:
        it.store.last_seen_kept = kept
        person = "" if kept is None else "t-lobby-1"
        return (
            commands_of(lambda: it.join("lobby", person=person)),
            commands_of(lambda: it.leave("lobby")),
        )

    for kept in (None, KEPT):  # the scripts are loaded
        cost(kept)
    it.direct.client.delete(f"{it.keys.prefix_of('ann')}:seen")
    without, with_index = cost(None), cost(KEPT)
    assert with_index[0] - without[0] <= 5
    assert with_index[1] - without[1] <= 7


def test_of_too_many_users_those_last_seen_longest_ago_are_forgotten(redis_server: Server) -> None:
    it = People(redis_server)
    seen, client = f"{it.keys.prefix_of('ann')}:seen", it.direct.client
    now = int(time.time() * 1000)
    client.zadd(seen, {f"u{number}": now - number for number in range(2 * PAGE + 10)})
    client.zadd(seen, {f"old{number}": now - KEPT - number for number in range(5)})
    done(it.index.forget_old(it.keys.shard_of("ann"), KEPT, 7))
    assert client.zrange(seen, 0, -1, desc=True) == [f"u{number}".encode() for number in range(7)]
    done(it.index.forget_old(it.keys.shard_of("ann"), 0, 7))
    assert not client.exists(seen)
