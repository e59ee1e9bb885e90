"""A room's news: when it goes out, to whom, in which form, and how often it is encoded."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from reactor.gateway.fanout import Fanout, broadcast
from reactor.gateway.framing import frame
from reactor.gateway.roster import Roster
from reactor.protocol.codec import JSON, MSGPACK
from reactor.protocol.membership import Membership, MembershipEvent
from reactor.protocol.messages import Departed, Member, MembersReply, RoomDiff, ServiceRestored
from reactor.protocol.room import DiffResult, RoomView
from reactor.settings import Settings
from tests.support.gateway import serving
from tests.support.waiting import PATIENCE


class CountingCodec:
    """A codec that counts; the rest is JSON's or MessagePack's."""

    def __init__(self, codec):
        self.codec = codec
        self.binary = codec.binary
        self.encoded = 0

    def encode(self, message):
        self.encoded += 1
        return self.codec.encode(message)


class Socket:
    """Takes what fan-out sends to a connection."""

    def __init__(self, codec, *, compressed=False):
        self.codec = codec
        self.compressed = compressed
        self.frames: list[bytes] = []
        self.payloads: list[bytes] = []

    def send_frame(self, data):
        assert not self.compressed
        self.frames.append(data)

    def send_payload(self, payload):
        self.payloads.append(payload)

    @property
    def messages(self):
        """What came, decoded."""
        return [msgspec.json.decode(data[4 if data[1] == 126 else 2 :]) for data in self.frames]


class Clock:
    """A loop whose time is moved by hand."""

    def __init__(self):
        self.now = 0.0
        self.timers: list[Any] = []

    def time(self):
        return self.now

    def call_later(self, seconds, callback, *args):
        timer = SimpleNamespace(when=self.now + seconds, call=lambda: callback(*args), cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        self.now += seconds
        for timer in sorted(self.timers, key=lambda timer: timer.when):
            if timer.when <= self.now and not timer.cancelled:
                self.timers.remove(timer)
                timer.call()


def member(user, name="name"):
    return Member(user, name, 1, 1)


class World:
    """A fan-out on a clock of its own, and a room that grows and shrinks."""

    def __init__(self, limit=5):
        self.clock = Clock()  # as much of a loop as is asked for
        self.roster: Roster[Any] = Roster()
        self.view = RoomView("r")
        self.view.reset("e", 0, [])
        self.json, self.msgpack = CountingCodec(JSON), CountingCodec(MSGPACK)
        self.known = True
        settings = Settings(max_members_view=limit)
        self.fanout = Fanout(settings, self.roster, self.snapshot, cast("Any", self.clock))

    def snapshot(self, room_id):
        members = list(self.view.members.values())
        reply = MembersReply(room_id, "e", self.view.version, len(members), members)
        return reply if self.known else None

    def socket(self, name, view="members", codec=None, **options):
        socket = Socket(codec or self.json, **options)
        self.roster.add("r", name, socket, view)
        return socket

    def change(self, *, joined=(), left=(), updated=()):
        count = len(self.view.members) + len(joined) - len(left)
        diff = RoomDiff(
            "r",
            "e",
            self.view.version,
            self.view.version + 1,
            count,
            [member(user) for user in joined],
            [member(user, "changed") for user in updated],
            [Departed(user, "left") for user in left],
        )
        assert self.view.apply(diff) is DiffResult.APPLIED
        self.fanout.send_diff(diff)


@pytest.fixture
def world():
    return World()


def test_the_first_change_is_sent_at_once_and_the_next_are_merged_at_the_end_of_the_window(world):
    socket = world.socket("me")
    world.change(joined="a")
    assert [message["joined"][0]["userId"] for message in socket.messages] == ["a"]
    world.clock.advance(0.02)
    world.change(joined="b")
    world.change(left="a")
    world.change(joined="c", updated="b")
    world.clock.advance(0.029)
    assert len(socket.frames) == 1
    world.clock.advance(0.001)
    assert len(socket.frames) == 2
    merged = socket.messages[1]
    assert (merged["type"], merged["from"], merged["version"], merged["count"]) == ("room:diff", 1, 4, 2)
    assert {joined["userId"] for joined in merged["joined"]} == {"b", "c"}
    assert merged["left"] == [{"userId": "a", "reason": "left"}]


def test_a_constantly_changing_room_is_sent_once_a_window(world):
    socket = world.socket("me")
    for number in range(100):
        world.change(joined=[f"u{number}"]) if number % 2 == 0 else world.change(left=[f"u{number - 1}"])
        world.clock.advance(0.01)
    assert len(socket.frames) == pytest.approx(20, abs=2)


def test_after_a_quiet_window_the_next_change_is_sent_at_once(world):
    socket = world.socket("me")
    world.change(joined="a")
    world.clock.advance(0.05)
    assert world.clock.timers == []
    world.change(joined="b")
    assert len(socket.frames) == 2


def test_each_room_has_its_own_window(world):
    socket, other = world.socket("me"), Socket(world.json)
    world.roster.add("other", "me", other, "members")
    world.change(joined="a")
    world.fanout.send_diff(RoomDiff("other", "e", 0, 1, 1, [member("x")], [], []))
    assert len(socket.frames) == len(other.frames) == 1


def test_applying_the_sent_diffs_gives_the_members_of_the_room(world):
    socket = world.socket("me")
    for step in range(60):
        world.change(joined=[f"u{step % 4}"]) if step % 8 < 4 else world.change(left=[f"u{step % 4}"])
        world.clock.advance(0.02)
    world.clock.advance(1)
    reader = RoomView("r")
    reader.reset("e", 0, [])
    for message in socket.messages:
        assert reader.apply(msgspec.convert(message, RoomDiff)) is DiffResult.APPLIED
    assert reader.members == world.view.members
    assert reader.version == world.view.version


def test_a_message_is_encoded_once_for_each_codec(world):
    plain = [world.socket(f"p{number}") for number in range(50)]
    packed = [world.socket(f"m{number}", codec=world.msgpack) for number in range(50)]
    squeezed = [world.socket(f"z{number}", compressed=True) for number in range(50)]
    world.change(joined="a")
    assert (world.json.encoded, world.msgpack.encoded) == (1, 1)
    assert all(socket.frames[0] is plain[0].frames[0] for socket in plain)
    assert all(socket.frames[0] is packed[0].frames[0] for socket in packed)
    payload = squeezed[0].payloads[0]
    assert plain[0].frames[0] == frame(payload)
    assert packed[0].frames[0][0] == 0x82
    assert all(socket.payloads[0] is payload and not socket.frames for socket in squeezed)


def test_each_view_receives_its_kind_of_message(world):
    members, count, none = world.socket("m"), world.socket("c", "count"), world.socket("n", "none")
    world.change(joined="a")
    assert members.messages[0]["type"] == "room:diff"
    assert count.messages == [{"type": "room:count", "roomId": "r", "epoch": "e", "version": 1, "count": 1}]
    assert none.frames == []


def test_an_update_sends_no_count(world):
    members, count = world.socket("m"), world.socket("c", "count")
    world.change(joined="a")
    world.clock.advance(1)
    world.change(updated="a")
    assert (len(members.frames), len(count.frames)) == (2, 1)


def test_a_room_above_the_limit_is_served_as_counts_until_it_is_well_below():
    world = World(limit=10)
    socket, counting = world.socket("m"), world.socket("c", "count")
    users = [f"u{number}" for number in range(11)]
    for user in users:
        world.change(joined=[user])
        world.clock.advance(1)
    assert [message["type"] for message in socket.messages] == ["room:diff"] * 10 + ["room:count"]
    assert socket.messages[-1]["count"] == 11
    assert world.roster.is_count_only("r")
    # One below the limit is not enough: the room would go to and fro.
    world.change(left=["u0"])
    world.clock.advance(1)
    assert (socket.messages[-1]["type"], socket.messages[-1]["count"]) == ("room:count", 10)
    world.change(left=["u1"])
    world.clock.advance(1)
    snapshot = socket.messages[-1]
    assert (snapshot["type"], snapshot["version"], snapshot["count"]) == ("room:members", 13, 9)
    assert {known["userId"] for known in snapshot["members"]} == set(users[2:])
    world.change(joined=["u1"])
    assert (socket.messages[-1]["type"], socket.messages[-1]["from"]) == ("room:diff", 13)
    assert {message["type"] for message in counting.messages} == {"room:count"}
    assert len(counting.frames) == 14


def test_without_a_snapshot_counts_continue(world):
    socket = world.socket("m")
    for number in range(6):
        world.change(joined=[f"u{number}"])
        world.clock.advance(1)
    world.known = False
    world.change(left=["u0", "u1"])
    assert socket.messages[-1]["type"] == "room:count"
    world.clock.advance(1)
    world.known = True
    world.change(updated=["u2"])
    assert socket.messages[-1]["type"] == "room:members"


def test_view_for_returns_the_view_that_will_be_served(world):
    world.socket("m")
    assert world.fanout.view_for("r", "members", 5) == "members"
    assert world.fanout.view_for("r", "none", 50) == "none"
    assert world.fanout.view_for("r", "members", 6) == "count"
    # As long as the room is served as counts, whatever it has shrunk to.
    assert world.fanout.view_for("r", "members", 1) == "count"
    assert world.fanout.view_for("elsewhere", "members", 5) == "members"


def test_the_window_of_a_very_large_room_grows_with_its_connections(world):
    sockets = [world.socket(f"c{number}", "count") for number in range(4000)]
    world.change(joined="a")
    world.change(joined="b")
    world.clock.advance(0.19)
    assert len(sockets[0].frames) == 1
    world.clock.advance(0.01)
    assert len(sockets[0].frames) == 2


def test_while_many_rooms_change_each_window_is_twice_as_long(world):
    rooms = [f"room-{number}" for number in range(100)]
    sockets = {room: [Socket(world.json) for _ in range(50)] for room in rooms}
    for room, those in sockets.items():
        for number, socket in enumerate(those):
            world.roster.add(room, f"u{number}", socket, "members")

    def change(version, some):
        for room in some:
            world.fanout.send_diff(RoomDiff(room, "e", version, version + 1, 51, [], [member("x")], []))

    for version in range(250):
        change(version, rooms)
        world.clock.advance(0.004)
    assert len(sockets["room-99"][0].frames) == pytest.approx(10, abs=1)
    world.clock.advance(1)
    before = len(sockets["room-99"][0].frames)
    for version in range(250, 500):
        change(version, rooms[90:])
        world.clock.advance(0.004)
    assert len(sockets["room-99"][0].frames) - before == pytest.approx(20, abs=2)


def test_a_room_without_connections_starts_no_timer(world):
    world.change(joined="a")
    assert world.clock.timers == []
    socket = world.socket("m")
    world.change(joined="b")
    world.change(joined="c")
    world.roster.remove("r", socket)
    world.clock.advance(1)
    assert len(socket.frames) == 1
    assert world.fanout._windows == {}
    assert world.clock.timers == []


def test_stop_discards_pending_changes(world):
    socket = world.socket("m")
    world.change(joined="a")
    world.change(joined="b")
    world.fanout.stop()
    world.clock.advance(1)
    assert len(socket.frames) == 1


@asynccontextmanager
async def fanout_over_sockets(**settings):
    async with serving(**settings) as served:
        roster: Roster[Any] = Roster()
        fanout = Fanout(served.gateway._settings, roster, lambda _: None)
        yield served, roster, fanout
        fanout.stop()


def enter(roster, connection, room, user):
    membership = connection.session.rooms[room] = Membership(room, user)
    membership.advance(MembershipEvent.JOIN)
    membership.advance(MembershipEvent.JOINED)
    roster.add(room, user, connection, "members")


async def receive(socket):
    async with asyncio.timeout(PATIENCE):
        data = await socket.recv()
    return msgspec.msgpack.decode(data) if isinstance(data, bytes) else msgspec.json.decode(data)


async def test_force_leave_is_sent_to_each_connection_of_the_member_and_closes_those_without_another_room():
    async with (
        fanout_over_sockets() as (served, roster, fanout),
        connect(served.url) as first,
        connect(served.url, subprotocols=[Subprotocol("reactor.msgpack")]) as second,
        connect(served.url) as other,
    ):
        await served.handler.until(lambda: len(served.handler.opened_) == 3)
        phone, laptop, stranger = served.handler.opened_
        enter(roster, phone, "r", "u")
        enter(roster, laptop, "r", "u")
        enter(roster, laptop, "s", "u")
        enter(roster, stranger, "r", "v")
        assert fanout.force_leave("r", "u", "too long", "inactivity_timeout", 99) == (phone, laptop)
        expected = {
            "type": "room:force-leave",
            "roomId": "r",
            "message": "too long",
            "reason": "inactivity_timeout",
            "timestamp": 99,
        }
        assert await receive(first) == await receive(second) == expected
        await first.wait_closed()
        assert first.close_code == 4003
        assert roster.connections_of("r", "u") == ()
        assert roster.connections_of("s", "u") == (laptop,)
        assert roster.connections_of("r", "v") == (stranger,)
        assert fanout.force_leave("r", "u", "again", "kicked", 100) == ()
        broadcast(ServiceRestored("back"), served.gateway.connections)
        assert (await receive(second))["type"] == (await receive(other))["type"] == "service:restored"


@pytest.mark.parametrize("compression", [True, False])
async def test_connections_of_every_codec_receive_the_diffs(compression):
    async with (
        fanout_over_sockets(compression=compression) as (served, roster, fanout),
        connect(served.url, compression="deflate") as squeezed,
        connect(served.url, compression=None) as plain,
        connect(served.url, compression=None, subprotocols=[Subprotocol("reactor.msgpack")]) as packed,
    ):
        await served.handler.until(lambda: len(served.handler.opened_) == 3)
        assert [connection.compressed for connection in served.handler.opened_] == [compression, False, False]
        for number, connection in enumerate(served.handler.opened_):
            enter(roster, connection, "r", f"u{number}")
        for version in range(10):
            fanout.send_diff(RoomDiff("r", "e", version, version + 1, 1, [member("x" * 100)], [], []))
        got = [[await receive(socket) for _ in range(2)] for socket in (squeezed, plain, packed)]
        assert got[0] == got[1] == got[2]
        assert [message["version"] for message in got[0]] == [1, 10]
