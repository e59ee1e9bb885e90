"""A member list sent in pieces equals the room's members, whatever changed since the list was cached."""

import asyncio
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import Unavailable
from reactor.gateway import snapshots as snapshots_module
from reactor.gateway.addresses import AddressUsage
from reactor.gateway.connection import Connection
from reactor.gateway.snapshots import Pay, Snapshots
from reactor.protocol.codec import JSON, MSGPACK, Codec
from reactor.protocol.messages import Departed, Member, MembersReply, RoomDiff, RoomJoined
from reactor.protocol.room import RoomView
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def all_rooms_are_large_and_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "LARGE", 0)
    monkeypatch.setattr(snapshots_module, "PART_BYTES", 250)


USERS = [f"u{number}" for number in range(6)]


class FakeConnection:
    """Keeps the last message sent to it."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.reply: Any = None

    def send_parts(self, size: int, *parts: Any) -> None:
        self.parts = parts
        payload = self.read()
        assert len(payload) == size
        self.reply = self.codec.decode_reply(payload)

    def read(self) -> bytes:
        """The message as it is written now, which may be later."""
        return b"".join(part if isinstance(part, bytes) else part.encode() for part in self.parts)


def member(user: str, at: int = 1) -> Member:
    return Member(user, f'"{user}" Ü', at, at, data={"n": [at, "]}"]})


def sent_members(snapshots: Snapshots, view: RoomView, codec: Codec) -> list[Member]:
    connection = FakeConnection(codec)
    message = RoomJoined(view.room_id, "u", "s", 1, 1, False, view.epoch, view.version, 2, "members", id=7)
    snapshots.send(cast("Connection", connection), message, view)
    assert connection.reply.id == 7
    joined = list(connection.reply.members)
    snapshots.send(
        cast("Connection", connection), MembersReply(view.room_id, view.epoch, view.version, 2), view
    )
    assert list(connection.reply.members) == joined
    return joined


def room(*users: str, name: str = "lobby") -> RoomView:
    view = RoomView(name)
    view.reset("e", len(users), [member(user) for user in users])
    return view


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])
@given(
    st.lists(
        st.tuples(st.sampled_from(["join", "update", "leave", "reset", "list"]), st.sampled_from(USERS)),
        max_size=20,
    )
)
def test_each_list_equals_the_members_of_the_room(codec: Codec, steps: list[tuple[str, str]]) -> None:
    snapshots, view = Snapshots(), room()
    for at, (action, user) in enumerate(steps, 2):
        version = view.version
        joined = [member(user, at)] if action == "join" else []
        updated = [member(user, at)] if action == "update" and user in view.members else []
        left = [Departed(user, "left")] if action == "leave" else []
        if action == "reset":
            view.reset("e", version, [member(user, at)])
        elif joined or updated or left:
            view.apply(RoomDiff("lobby", "e", version, version + 1, 0, joined, updated, left))
        else:
            assert sent_members(snapshots, view, codec) == list(view.members.values())
    assert sent_members(snapshots, view, codec) == list(view.members.values())


def test_only_new_members_of_a_cached_list_are_encoded() -> None:
    snapshots, view, encoded = Snapshots(), room("u1", "u2"), []
    codec = Codec("json", msgspec.json, binary=False)
    encode = codec.encode

    def counted(message: Any) -> bytes:
        encoded.append(message)
        return encode(message)

    codec.encode = counted
    sent_members(snapshots, view, codec)
    view.apply(RoomDiff("lobby", "e", 2, 3, 3, [member("u3")], [], []))
    sent_members(snapshots, view, codec)
    assert [message.user_id for message in encoded if isinstance(message, Member)] == ["u1", "u2", "u3"]


def test_after_a_change_only_the_part_with_it_is_encoded_again() -> None:
    snapshots, view, encoded = Snapshots(), room(*(f"u{number}" for number in range(60))), []
    codec = Codec("json", msgspec.json, binary=False)
    encode = codec.encode

    def counted(message: Any) -> bytes:
        encoded.append(message)
        return encode(message)

    codec.encode = counted
    sent_members(snapshots, view, codec)
    encoded.clear()
    view.apply(RoomDiff("lobby", "e", 60, 61, 60, [], [member("u30", 9)], []))
    assert sent_members(snapshots, view, codec) == list(view.members.values())
    assert 1 <= len([message for message in encoded if isinstance(message, Member)]) < 10


def test_a_list_that_waits_holds_no_bytes_once_another_has_replaced_it_and_is_the_same_later() -> None:
    snapshots, view = Snapshots(), room(*(f"u{number}" for number in range(60)))
    connection = FakeConnection(JSON)
    message = MembersReply(view.room_id, view.epoch, view.version, 60)
    snapshots.send(cast("Connection", connection), message, view)
    before = connection.read()
    view.reset("e2", 1, [member(f"u{number}", 5) for number in range(60)])
    sent_members(snapshots, view, JSON)
    waiting = [part for part in connection.parts if not isinstance(part, bytes)]
    assert all(part.encoded is None for part in waiting)
    assert connection.read() == before
    assert sum(map(len, waiting)) < 100 * len(waiting)


def test_the_bytes_of_cached_lists_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "MAX_CACHED", 2000)
    snapshots = Snapshots()
    for number in range(100):
        users = [f"u{user}" for user in range(5)]
        sent_members(snapshots, room(*users, name=f"r{number}"), JSON)
    assert len(snapshots._lists) < 10
    assert snapshots._cached <= 2000


async def test_a_list_in_messagepack_is_prepared_in_turns_for_all_who_can_pay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots_module, "TURN_SECONDS", -1.0)
    snapshots, view = Snapshots(), room(*(f"u{number}" for number in range(60)))
    turns, paid = [0], list[float]()

    def next_turn() -> None:
        turns[0] += 1
        asyncio.get_running_loop().call_soon(next_turn)

    async def in_debt() -> None:
        await snapshots.prepare(view, MSGPACK, lambda seconds: 3600.0 if seconds else 0.0)

    def pay(seconds: float) -> float:
        paid.append(seconds)
        return 0.0

    waiting = asyncio.create_task(in_debt())
    await asyncio.sleep(0)
    next_turn()
    assert not snapshots.is_prepared(view, MSGPACK)
    await snapshots.prepare(view, MSGPACK, pay)
    parts = len(snapshots._cached_view(view, MSGPACK).parts)
    assert parts > 10
    paid.remove(0.0)  # it is asked whether it can pay before anything is done for it
    assert parts - 1 == len(paid) <= turns[0], "the one in debt has encoded the first"
    assert snapshots.is_prepared(view, MSGPACK)
    assert min(paid) > 0
    monkeypatch.setattr(snapshots_module, "_Part", None)  # nothing is encoded from here on
    assert sent_members(snapshots, view, MSGPACK) == list(view.members.values())
    waiting.cancel()


def for_nothing(_seconds: float) -> float:
    return 0.0


def in_debt_after(turns: int) -> Pay:
    """A receiver that can pay for so many turns."""
    left = [turns]

    def pay(seconds: float) -> float:
        left[0] -= seconds > 0
        return 3600.0 if left[0] <= 0 else 0.0

    return pay


async def test_lists_that_are_prepared_at_the_same_time_become_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "TURN_SECONDS", -1.0)
    monkeypatch.setattr(snapshots_module, "MAX_CACHED", 2000)  # less than one of them
    snapshots, users = Snapshots(), [f"u{number}" for number in range(60)]
    read = [[member(user) for user in users] for _ in range(3)]
    views = [room(*users), room(*users)]  # the room was unfollowed, and followed anew
    encoded, fill = list[Codec](), snapshots._fill

    def counted(part: Any) -> None:
        encoded.append(part._codec)
        fill(part)

    monkeypatch.setattr(snapshots, "_fill", counted)

    def pay(_seconds: float) -> float:
        sent_members(snapshots, room(*users), JSON)  # of other rooms meanwhile
        return 0.0

    async def ask(members: list[Member]) -> None:
        await snapshots.prepare_members(members, MSGPACK, pay)
        assert not snapshots_module._first_missing(snapshots._cached_members(members, MSGPACK))

    async def join(view: RoomView) -> None:
        await snapshots.prepare(view, MSGPACK, pay)
        assert snapshots.is_prepared(view, MSGPACK)

    async with asyncio.timeout(20):
        await asyncio.gather(*map(ask, read), *map(join, views))
    parts = len(snapshots._cached_view(room(*users), MSGPACK).parts)
    assert encoded.count(MSGPACK) == 5 * parts, "each once"
    assert not snapshots._read


async def test_a_list_that_changes_all_the_time_keeps_no_other_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots_module, "TURN_SECONDS", -1.0)
    monkeypatch.setattr(snapshots_module, "MAX_AT_ONCE", 0.01)
    snapshots, users = Snapshots(), [f"u{number}" for number in range(60)]
    changing, quiet = room(*users, name="changing"), room(*users, name="quiet")

    def change(_seconds: float) -> float:
        changing.reset("e", changing.version + 1, [member(user) for user in users])
        return 0.0

    never = asyncio.create_task(snapshots.prepare(changing, MSGPACK, change))
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await snapshots.prepare(quiet, MSGPACK, for_nothing)
    assert snapshots.is_prepared(quiet, MSGPACK)
    assert not never.done()
    never.cancel()


async def test_what_waits_until_its_receiver_can_pay_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "TURN_SECONDS", -1.0)
    snapshots, users = Snapshots(), [f"u{number}" for number in range(60)]
    read = [[member(user) for user in users] for _ in range(5)]
    size = sum(map(snapshots_module._size_of, read[0]))
    monkeypatch.setattr(snapshots_module, "MAX_READ_OF_ADDRESS", 2 * size)
    monkeypatch.setattr(snapshots_module, "MAX_READ", 3 * size)
    one, other = AddressUsage("one"), AddressUsage("other")

    async def ask(members: list[Member], address: AddressUsage, turns: int = 1) -> None:
        await snapshots.prepare_members(members, MSGPACK, in_debt_after(turns), address)

    async def waiting(members: list[Member], address: AddressUsage) -> asyncio.Task[None]:
        task = asyncio.create_task(ask(members, address))
        await until(lambda: (id(members), MSGPACK) in snapshots._lists)
        return task

    tasks = [await waiting(members, one) for members in (read[0], read[1], read[1])]
    with pytest.raises(Unavailable):
        await ask(read[2], one)
    tasks.append(await waiting(read[3], other))
    with pytest.raises(Unavailable):
        await ask(read[4], other)
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.wait(tasks[:2])
    assert snapshots._read.total() == 2 * size, "another still waits for the second"
    await ask(read[4], other, 1000)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not snapshots._read
    assert len(snapshots._lists) == 1, "that which was ready"
    assert snapshots._cached == sum(part.size for part in snapshots._cached_members(read[4], MSGPACK).parts)


async def test_members_that_are_read_for_one_answer_are_prepared_too() -> None:
    snapshots, members = Snapshots(), [member(f"u{number}") for number in range(60)]
    paid = list[float]()

    def pay(seconds: float) -> float:
        paid.append(seconds)
        return 0.0

    await snapshots.prepare_members(members, MSGPACK, pay)
    assert sum(paid) > 0
    connection = FakeConnection(MSGPACK)
    snapshots.send_members(cast("Connection", connection), MembersReply("lobby", "e", 60, 60), members)
    assert list(connection.reply.members) == members


async def test_as_json_nothing_is_prepared() -> None:
    snapshots, view = Snapshots(), room("u1")
    await snapshots.prepare(view, JSON, lambda _seconds: pytest.fail("no one pays"))
    assert snapshots.is_prepared(view, JSON)


async def test_nothing_more_is_prepared_for_a_connection_that_is_closed() -> None:
    def pay(_seconds: float) -> float:
        raise Unavailable("the connection is closed")

    with pytest.raises(Unavailable):
        await Snapshots().prepare(room("u1"), MSGPACK, pay)
