"""Fan-out of a room's changes: when they are sent, to whom, in which form, and how often they are encoded."""

import asyncio
import random
from contextlib import asynccontextmanager
from time import thread_time
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.typing import Subprotocol

from reactor.gateway import fanout as fanout_module
from reactor.gateway import snapshots
from reactor.gateway.connection import Connection
from reactor.gateway.cost import CostLimiter
from reactor.gateway.fanout import Fanout, broadcast
from reactor.gateway.framing import frame
from reactor.gateway.roster import Roster
from reactor.membership.paid_lists import PaidLists
from reactor.protocol.codec import JSON, MSGPACK
from reactor.protocol.membership import Membership, MembershipEvent
from reactor.protocol.messages import Departed, Member, MembersReply, RoomDiff, ServiceRestored
from reactor.protocol.room import DiffResult, RoomView
from reactor.settings import Settings
from tests.support.gateway import serving
from tests.support.waiting import PATIENCE, until


class CountingCodec:
    """Counts the encoded messages of another codec."""

    def __init__(self, codec):
        self.codec = codec
        self.binary = codec.binary
        self.encoded = 0

    def encode(self, message):
        self.encoded += 1
        return self.codec.encode(message)


class Socket:
    """Records what fan-out sends to a connection."""

    def __init__(self, codec, *, compressed=False):
        self.codec = codec
        self.socket_id = f"s{id(self)}"
        self.compressed = compressed
        self.frames: list[bytes] = []
        self.payloads: list[bytes] = []
        self.lags = self.blocked = False

    def send(self, message):
        payload = self.codec.encode(message)
        self.frames.append(frame(payload))
        return len(payload)

    def send_frame(self, data):
        assert not self.compressed
        self.frames.append(data)

    def send_deflated(self, payload, shared):
        assert self.compressed
        self.payloads.append(payload)

    def send_parts(self, size, *parts):
        self.frames.append(b"".join(one if isinstance(one, bytes) else one.encode() for one in parts))

    @property
    def messages(self):
        """The received frames, decoded."""
        return [msgspec.json.decode(data[4 if data[1] == 126 else 2 :]) for data in self.frames]


class Clock:
    """An event loop's clock and timers, advanced by the test."""

    def __init__(self):
        self.now = 0.0
        self.timers: list[Any] = []

    def time(self):
        return self.now

    def call_later(self, seconds, callback, *args):
        when = self.now + seconds
        timer = SimpleNamespace(at=when, when=lambda: when, call=lambda: callback(*args), cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        self.now += seconds
        for timer in sorted(self.timers, key=lambda timer: timer.at):
            if timer.at <= self.now and not timer.cancelled:
                self.timers.remove(timer)
                timer.call()


def member(user, name="name"):
    return Member(user, name, 1, 1)


class Simulation:
    """A fan-out with a simulated clock, and a room whose members change."""

    def __init__(self, limit=5):
        self.clock = Clock()
        self.roster: Roster[Any] = Roster()
        self.view = RoomView("r")
        self.view.reset("e", 0, [])
        self.json, self.msgpack = CountingCodec(JSON), CountingCodec(MSGPACK)
        self.has_view = True
        settings = Settings(max_members_view=limit)
        self.fanout = Fanout(
            settings, self.roster, lambda _: self.view if self.has_view else None, cast("Any", self.clock)
        )

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
def simulation():
    return Simulation()


def test_the_first_change_is_sent_at_once_and_the_next_are_merged_at_the_end_of_the_window(simulation):
    socket = simulation.socket("me")
    simulation.change(joined="a")
    assert [message["joined"][0]["userId"] for message in socket.messages] == ["a"]
    simulation.clock.advance(0.02)
    simulation.change(joined="b")
    simulation.change(left="a")
    simulation.change(joined="c", updated="b")
    simulation.clock.advance(0.029)
    assert len(socket.frames) == 1
    simulation.clock.advance(0.001)
    assert len(socket.frames) == 2
    merged = socket.messages[1]
    assert (merged["type"], merged["from"], merged["version"], merged["count"]) == ("room:diff", 1, 4, 2)
    assert {joined["userId"] for joined in merged["joined"]} == {"b", "c"}
    assert merged["left"] == [{"userId": "a", "reason": "left"}]


def test_a_constantly_changing_room_is_sent_once_a_window(simulation):
    socket = simulation.socket("me")
    for number in range(100):
        simulation.change(joined=[f"u{number}"]) if number % 2 == 0 else simulation.change(
            left=[f"u{number - 1}"]
        )
        simulation.clock.advance(0.01)
    assert len(socket.frames) == pytest.approx(20, abs=2)


def test_after_a_quiet_window_the_next_change_is_sent_at_once(simulation):
    socket = simulation.socket("me")
    simulation.change(joined="a")
    simulation.clock.advance(0.05)
    assert simulation.clock.timers == []
    simulation.change(joined="b")
    assert len(socket.frames) == 2


def test_each_room_has_its_own_window(simulation):
    socket, other = simulation.socket("me"), Socket(simulation.json)
    simulation.roster.add("other", "me", other, "members")
    simulation.change(joined="a")
    simulation.fanout.send_diff(RoomDiff("other", "e", 0, 1, 1, [member("x")], [], []))
    assert len(socket.frames) == len(other.frames) == 1


def test_applying_the_sent_diffs_gives_the_members_of_the_room(simulation):
    socket = simulation.socket("me")
    for step in range(60):
        simulation.change(joined=[f"u{step % 4}"]) if step % 8 < 4 else simulation.change(
            left=[f"u{step % 4}"]
        )
        simulation.clock.advance(0.02)
    simulation.clock.advance(1)
    reader = RoomView("r")
    reader.reset("e", 0, [])
    for message in socket.messages:
        assert reader.apply(msgspec.convert(message, RoomDiff)) is DiffResult.APPLIED
    assert reader.members == simulation.view.members
    assert reader.version == simulation.view.version


def test_a_message_is_encoded_once_for_each_codec(simulation):
    plain = [simulation.socket(f"p{number}") for number in range(50)]
    packed = [simulation.socket(f"m{number}", codec=simulation.msgpack) for number in range(50)]
    deflated = [simulation.socket(f"z{number}", compressed=True) for number in range(50)]
    simulation.change(joined="a")
    assert (simulation.json.encoded, simulation.msgpack.encoded) == (1, 1)
    assert all(socket.frames[0] is plain[0].frames[0] for socket in plain)
    assert all(socket.frames[0] is packed[0].frames[0] for socket in packed)
    payload = deflated[0].payloads[0]
    assert plain[0].frames[0] == frame(payload)
    assert packed[0].frames[0][0] == 0x82
    assert all(socket.payloads[0] is payload and not socket.frames for socket in deflated)


def test_each_view_receives_its_kind_of_message(simulation):
    members, count, none = (
        simulation.socket("m"),
        simulation.socket("c", "count"),
        simulation.socket("n", "none"),
    )
    simulation.change(joined="a")
    assert members.messages[0]["type"] == "room:diff"
    assert count.messages == [{"type": "room:count", "roomId": "r", "epoch": "e", "version": 1, "count": 1}]
    assert none.frames == []


def test_an_update_sends_no_count(simulation):
    members, count = simulation.socket("m"), simulation.socket("c", "count")
    simulation.change(joined="a")
    simulation.clock.advance(1)
    simulation.change(updated="a")
    assert (len(members.frames), len(count.frames)) == (2, 1)


def test_a_room_above_the_limit_is_served_as_counts_until_it_is_well_below():
    simulation = Simulation(limit=10)
    socket, counting = simulation.socket("m"), simulation.socket("c", "count")
    users = [f"u{number}" for number in range(11)]
    for user in users:
        simulation.change(joined=[user])
        simulation.clock.advance(1)
    assert [message["type"] for message in socket.messages] == ["room:diff"] * 10 + ["room:count"]
    assert socket.messages[-1]["count"] == 11
    assert simulation.roster.is_count_only("r")
    # One below the limit is not enough, or a room at the limit would switch back and forth.
    simulation.change(left=["u0"])
    simulation.clock.advance(1)
    assert (socket.messages[-1]["type"], socket.messages[-1]["count"]) == ("room:count", 10)
    simulation.change(left=["u1"])
    simulation.clock.advance(1)
    snapshot = socket.messages[-1]
    assert (snapshot["type"], snapshot["version"], snapshot["count"]) == ("room:members", 13, 9)
    assert {entry["userId"] for entry in snapshot["members"]} == set(users[2:])
    simulation.change(joined=["u1"])
    assert (socket.messages[-1]["type"], socket.messages[-1]["from"]) == ("room:diff", 13)
    assert {message["type"] for message in counting.messages} == {"room:count"}
    assert len(counting.frames) == 14


def test_without_a_view_counts_continue(simulation):
    socket = simulation.socket("m")
    for number in range(6):
        simulation.change(joined=[f"u{number}"])
        simulation.clock.advance(1)
    simulation.has_view = False
    simulation.change(left=["u0", "u1"])
    assert socket.messages[-1]["type"] == "room:count"
    simulation.clock.advance(1)
    simulation.has_view = True
    simulation.change(updated=["u2"])
    assert socket.messages[-1]["type"] == "room:members"


def test_a_connection_that_lags_receives_the_room_anew_when_it_reads_again(simulation):
    slow, quick, counting = (simulation.socket(name, view) for name, view in (
        ("slow", "members"), ("quick", "members"), ("counting", "count"),
    ))  # fmt: skip
    simulation.change(joined=["a"])
    slow.lags = counting.lags = True
    for user in "bcd":
        simulation.clock.advance(1)
        simulation.change(joined=[user])
    assert [len(socket.frames) for socket in (slow, quick, counting)] == [1, 4, 1]
    slow.lags = counting.lags = False
    for socket in (slow, counting):
        simulation.fanout.catch_up(socket)
    assert (slow.messages[-1]["type"], slow.messages[-1]["version"]) == ("room:members", 4)
    assert {entry["userId"] for entry in slow.messages[-1]["members"]} == set("abcd")
    assert (counting.messages[-1]["type"], counting.messages[-1]["count"]) == ("room:count", 4)
    simulation.clock.advance(1)
    simulation.change(left=["a"])
    assert slow.messages[-1]["type"] == quick.messages[-1]["type"] == "room:diff"
    assert simulation.fanout.lists_anew == 1


def test_a_connection_that_is_blocked_again_receives_the_other_rooms_later(simulation):
    slow = simulation.socket("slow")
    slow.lags = True
    simulation.change(joined=["a"])
    slow.lags, slow.blocked = False, True
    simulation.fanout.catch_up(slow)
    assert slow.frames == []
    slow.blocked = False
    simulation.fanout.catch_up(slow)
    assert [message["type"] for message in slow.messages] == ["room:members"]


def test_a_connection_that_misses_changes_again_and_again_is_sent_a_bounded_number_of_lists(
    simulation, monkeypatch
):
    slow = simulation.socket("slow")
    simulation.change(joined=["a"])
    simulation.clock.advance(1)
    size = len(slow.frames[0])
    monkeypatch.setattr(fanout_module, "_BYTES_PER_SECOND", size / 10)  # a list in about ten seconds
    monkeypatch.setattr(fanout_module, "_ANEW_BYTES_AT_ONCE", 2 * size)

    def miss_a_change(number: int) -> None:
        slow.lags = True
        simulation.change(joined=["b"]) if number % 2 else simulation.change(left=["b"])
        simulation.clock.advance(0.1)
        slow.lags = False
        simulation.fanout.catch_up(slow)

    for number in range(100):
        miss_a_change(number + 1)
    lists = slow.messages[1:]
    assert 3 <= len(lists) < 7
    simulation.clock.advance(30)
    last = slow.messages[-1]
    assert (last["type"], last["version"]) == ("room:members", simulation.view.version)
    assert len(slow.frames) == len(lists) + 2
    assert not simulation.fanout._missed
    # A timer for a connection that lags by then, or is closed, does nothing.
    for end in ("lags", "closed"):
        for number in range(9):
            miss_a_change(number)
        frames = len(slow.frames)
        slow.lags = end == "lags"
        if end == "closed":
            simulation.fanout.forget(slow)
        simulation.clock.advance(60)
        assert len(slow.frames) == frames
    simulation.fanout.stop()


async def test_a_closed_connection_misses_nothing():
    async with fanout_over_sockets() as (served, roster, fanout), connect(served.url):
        await served.handler.until(lambda: len(served.handler.opened_) == 1)
        (connection,) = served.handler.opened_
        add_member(roster, connection, "r", "ann")
        connection.lags = True
        connection.abort()
        fanout.forget(connection)
        # It is in the room until its leave, which was on the way, is answered.
        fanout.send_diff(RoomDiff("r", "e", 0, 1, 1, [member("bob")], [], []))
        assert not fanout._missed


def test_a_room_that_is_not_known_when_a_connection_reads_again_is_sent_once_it_is(simulation):
    slow, counting, observer = (simulation.socket(name, view) for name, view in (
        ("slow", "members"), ("counting", "count"), ("observer", "count"),
    ))  # fmt: skip
    every = (slow, counting, observer)
    for socket in every:
        socket.lags = True
    simulation.change(joined=["a"])
    simulation.has_view = False
    for socket in every:
        socket.lags = False
        simulation.fanout.catch_up(socket)
    assert not any(socket.frames for socket in every)
    observer.lags = True
    simulation.has_view = True
    simulation.fanout.room_known("r")
    assert [message["type"] for message in slow.messages] == ["room:members"]
    assert [message["type"] for message in counting.messages] == ["room:count"]
    assert observer.messages == []
    observer.lags = False
    simulation.fanout.catch_up(observer)
    assert [message["type"] for message in observer.messages] == ["room:count"]
    simulation.fanout.room_known("r")
    assert [len(socket.frames) for socket in every] == [1, 1, 1]
    assert simulation.fanout._missed == simulation.fanout._unknown == {}


@pytest.mark.parametrize("lags", [True, False])
async def test_a_list_in_messagepack_is_sent_once_it_is_prepared(monkeypatch, lags):
    monkeypatch.setattr(snapshots, "LARGE", 3)
    monkeypatch.setattr(snapshots, "PART_BYTES", 200)
    monkeypatch.setattr(snapshots, "TURN_SECONDS", -1.0)
    simulation = Simulation(limit=100)
    fanout = simulation.fanout = Fanout(Settings(), simulation.roster, lambda _: simulation.view)
    socket = simulation.socket("packed", codec=MSGPACK)
    users = [f"u{number}" for number in range(40)]
    if lags:
        socket.lags = True
        simulation.change(joined=users)
        socket.lags = False
        fanout.catch_up(socket)
    else:
        monkeypatch.setattr(fanout_module, "_LARGE_DIFF", 1)  # a list is sent in place of the diff
        simulation.change(joined=users)
    assert socket.frames == []
    await asyncio.sleep(0)
    simulation.change(joined=["late"])  # while the list is prepared
    assert socket.frames == []
    await until(lambda: socket.frames)
    (payload,) = socket.frames
    reply = msgspec.msgpack.decode(payload)
    assert (reply["type"], reply["version"]) == ("room:members", 2)
    assert [entry["userId"] for entry in reply["members"]] == [*users, "late"]
    assert not fanout._missed
    assert not fanout._unknown
    assert not fanout._preparing
    simulation.change(left=["late"])
    await until(lambda: len(socket.frames) == 2)
    fanout.stop()


@pytest.mark.parametrize("end", ["closed", "unfollowed"])
async def test_a_list_for_which_no_one_waits_any_more_is_not_prepared_on(monkeypatch, end):
    monkeypatch.setattr(snapshots, "LARGE", 3)
    monkeypatch.setattr(snapshots, "PART_BYTES", 200)
    monkeypatch.setattr(snapshots, "TURN_SECONDS", -1.0)
    simulation = Simulation(limit=100)
    views: list[RoomView | None] = [simulation.view]
    fanout = simulation.fanout = Fanout(Settings(), simulation.roster, lambda _: views[0])
    socket = simulation.socket("packed", codec=MSGPACK)
    socket.lags = True
    simulation.change(joined=[f"u{number}" for number in range(40)])
    socket.lags = False
    fanout.catch_up(socket)
    (task,) = fanout._preparing.values()
    await asyncio.sleep(0)
    if end == "closed":
        fanout.forget(socket)
    else:
        views[0] = None
    await task
    assert not fanout.snapshots._lists
    assert not fanout._preparing
    fanout.stop()


@pytest.mark.parametrize("known", [True, False])
def test_a_connection_that_has_left_a_room_is_not_sent_what_it_missed(simulation, known):
    slow = simulation.socket("slow")
    slow.lags = True
    simulation.change(joined=["a"])
    simulation.roster.remove("r", slow)
    slow.lags, simulation.has_view = False, known
    simulation.fanout.catch_up(slow)
    assert slow.frames == []
    assert simulation.fanout._missed == simulation.fanout._unknown == {}


def test_a_closed_connection_is_forgotten(simulation):
    gone = simulation.socket("gone")
    gone.lags = True
    simulation.change(joined=["a"])
    gone.lags = simulation.has_view = False
    simulation.fanout.catch_up(gone)
    assert simulation.fanout._unknown
    simulation.fanout.forget(gone)
    assert simulation.fanout._missed == simulation.fanout._unknown == {}


def test_the_window_is_longer_the_more_bytes_were_sent(simulation):
    socket = simulation.socket("m")
    large = Member("large", "name", 1, 1, data="x" * 150_000)
    diff = RoomDiff("r", "e", 0, 1, 1, [large], [], [])
    assert simulation.view.apply(diff) is DiffResult.APPLIED
    simulation.fanout.send_diff(diff)
    simulation.change(joined=["a"])
    simulation.clock.advance(0.06)
    assert len(socket.frames) == 1
    simulation.clock.advance(0.02)
    assert len(socket.frames) == 2


def test_a_change_larger_than_a_list_is_sent_as_a_list_after_the_departures():
    simulation = Simulation(limit=1000)
    socket = simulation.socket("m")
    simulation.change(joined=["gone"])
    simulation.clock.advance(1)
    many = [Member(f"u{number}", "name", 1, 1, data="x" * 4000) for number in range(90)]
    diff = RoomDiff("r", "e", 1, 2, 90, many, [], [Departed("gone", "kicked")])
    assert simulation.view.apply(diff) is DiffResult.APPLIED
    simulation.fanout.send_diff(diff)
    departure, listed = [msgspec.json.decode(data[data.index(b"{") :]) for data in socket.frames[1:]]
    assert (departure["type"], departure["left"]) == ("room:diff", [{"userId": "gone", "reason": "kicked"}])
    assert (departure["version"], listed["version"], listed["type"]) == (2, 2, "room:members")
    assert len(listed["members"]) == 90


def test_view_for_returns_the_view_that_will_be_served(simulation):
    simulation.socket("m")
    assert simulation.fanout.view_for("r", "members", 5) == "members"
    assert simulation.fanout.view_for("r", "none", 50) == "none"
    assert simulation.fanout.view_for("r", "members", 6) == "count"
    # The room is served as counts until the fan-out switches back, whatever its size.
    assert simulation.fanout.view_for("r", "members", 1) == "count"
    assert simulation.fanout.view_for("elsewhere", "members", 5) == "members"


def test_the_window_of_a_very_large_room_grows_with_its_connections(simulation):
    sockets = [simulation.socket(f"c{number}", "count") for number in range(4000)]
    simulation.change(joined="a")
    simulation.change(joined="b")
    simulation.clock.advance(0.19)
    assert len(sockets[0].frames) == 1
    simulation.clock.advance(0.01)
    assert len(sockets[0].frames) == 2


def test_while_many_rooms_change_each_window_is_up_to_four_times_as_long(simulation):
    rooms = [f"room-{number}" for number in range(100)]
    sockets = {room: [Socket(simulation.json) for _ in range(50)] for room in rooms}
    for room, connections in sockets.items():
        for number, socket in enumerate(connections):
            simulation.roster.add(room, f"u{number}", socket, "members")

    def change(version, changed):
        for room in changed:
            simulation.fanout.send_diff(RoomDiff(room, "e", version, version + 1, 51, [], [member("x")], []))

    for version in range(250):
        change(version, rooms)
        simulation.clock.advance(0.004)
    assert len(sockets["room-99"][0].frames) == pytest.approx(5, abs=1)
    simulation.clock.advance(1)
    before = len(sockets["room-99"][0].frames)
    for version in range(250, 500):
        change(version, rooms[90:])
        simulation.clock.advance(0.004)
    assert len(sockets["room-99"][0].frames) - before == pytest.approx(18, abs=2)


def watched_rooms(simulation, rooms, observers):
    """Rooms, each with so many connections that watch its members; the connections."""
    sockets = {}
    for room in rooms:
        sockets[room] = [Socket(simulation.json) for _ in range(observers)]
        for socket in sockets[room]:
            simulation.roster.observe(room, socket, "members")
    return sockets


def change_rooms(simulation, rooms, version):
    for room in rooms:
        simulation.fanout.send_diff(RoomDiff(room, "e", version, version + 1, 1, [], [member("x")], []))


def test_what_all_observers_are_sent_is_bounded_and_rooms_that_few_watch_come_first(simulation):
    attacked = watched_rooms(simulation, [f"attacked {number}" for number in range(100)], 200)
    quiet = watched_rooms(simulation, ["quiet"], 2)
    joined = simulation.socket("in a room")
    for version in range(1000):
        change_rooms(simulation, attacked, version)
        if version % 100 == 0:
            change_rooms(simulation, quiet, version)
            simulation.change(joined=[f"u{version}"])
        simulation.clock.advance(0.004)
    sent = {room: [len(socket.frames) for socket in sockets] for room, sockets in attacked.items()}
    # 4 s at 50 us a message.
    assert sum(map(sum, sent.values())) == pytest.approx(80_000, rel=0.1)
    assert all(min(frames) >= 2 for frames in sent.values())  # no room waits for ever
    assert [len(socket.frames) for socket in quiet["quiet"]] == [10, 10]
    assert len(joined.frames) == 10  # each at once
    simulation.clock.advance(1)
    for _ in range(100):
        simulation.clock.advance(0.1)
    last = [sockets[0].messages[-1] for sockets in attacked.values()]
    assert {message["version"] for message in last} == {1000}
    assert simulation.fanout.watched_members._rooms == {}
    assert not [timer for timer in simulation.clock.timers if not timer.cancelled]


def test_an_observer_receives_the_first_change_at_once_and_the_next_at_the_end_of_the_window(simulation):
    sockets = watched_rooms(simulation, ["r"], 1)["r"]
    for user in "abc":
        simulation.change(joined=[user])
    assert len(sockets[0].frames) == 1
    simulation.clock.advance(0.06)
    assert [message["version"] for message in sockets[0].messages] == [1, 3]


def test_a_member_that_watches_its_room_loses_no_change_when_it_leaves(simulation):
    both = simulation.socket("both")
    simulation.roster.observe("r", both, "members")
    simulation.change(joined=["a"])
    simulation.change(joined=["b"])
    simulation.roster.remove("r", both)
    simulation.clock.advance(0.06)
    simulation.clock.advance(0.06)
    assert both.messages[-1]["version"] == 2
    assert both.messages[0]["from"] == 0


def test_observers_of_a_room_above_the_limit_are_sent_counts_until_it_is_well_below():
    simulation = Simulation(limit=3)
    (socket,) = watched_rooms(simulation, ["r"], 1)["r"]
    for user in "abcd":
        simulation.change(joined=[user])
        simulation.clock.advance(1)
    assert simulation.fanout.view_for("r", "members", 3, observer=True) == "count"
    simulation.change(left=["a", "b"])
    simulation.clock.advance(1)
    kinds = [message["type"] for message in socket.messages]
    assert kinds == ["room:diff", "room:diff", "room:diff", "room:count", "room:members"]


def test_a_room_without_connections_starts_no_timer(simulation):
    simulation.change(joined="a")
    assert simulation.clock.timers == []
    socket = simulation.socket("m")
    simulation.change(joined="b")
    simulation.change(joined="c")
    simulation.roster.remove("r", socket)
    simulation.clock.advance(1)
    assert len(socket.frames) == 1
    assert simulation.fanout._windows == {}
    assert simulation.clock.timers == []


def test_stop_discards_pending_changes(simulation):
    socket = simulation.socket("m")
    simulation.change(joined="a")
    simulation.change(joined="b")
    simulation.fanout.stop()
    simulation.clock.advance(1)
    assert len(socket.frames) == 1


@asynccontextmanager
async def fanout_over_sockets(**settings):
    async with serving(**settings) as served:
        roster: Roster[Any] = Roster()
        fanout = Fanout(served.gateway._settings, roster, lambda _: None)
        yield served, roster, fanout
        fanout.stop()


def add_member(roster, connection, room, user):
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
        phone, laptop, other_user = served.handler.opened_
        add_member(roster, phone, "r", "u")
        add_member(roster, laptop, "r", "u")
        add_member(roster, laptop, "s", "u")
        add_member(roster, other_user, "r", "v")
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
        assert roster.connections_of("r", "v") == (other_user,)
        assert fanout.force_leave("r", "u", "again", "kicked", 100) == ()
        broadcast(ServiceRestored("back"), served.gateway.connections)
        assert (await receive(second))["type"] == (await receive(other))["type"] == "service:restored"


async def test_a_message_is_compressed_once_for_all_connections_with_the_same_parameters(
    monkeypatch: pytest.MonkeyPatch,
):
    compressed, deflate = [], Connection._deflated

    def count(self, payload, parser):
        compressed.append(payload)
        return deflate(self, payload, parser)

    monkeypatch.setattr(Connection, "_deflated", count)
    smaller = ClientPerMessageDeflateFactory(server_max_window_bits=9)
    async with (
        fanout_over_sockets(compression=True) as (served, roster, fanout),
        connect(served.url, compression="deflate") as one,
        connect(served.url, compression="deflate") as other,
        connect(served.url, compression=None, extensions=[smaller]) as third,
    ):
        await served.handler.until(lambda: len(served.handler.opened_) == 3)
        for number, connection in enumerate(served.handler.opened_):
            add_member(roster, connection, "r", f"u{number}")
        fanout.send_diff(RoomDiff("r", "e", 1, 2, 1, [member("x" * 100)], [], []))
        received = [await receive(socket) for socket in (one, other, third)]
        assert received[0] == received[1] == received[2]
        assert received[0]["version"] == 2
    assert len(compressed) == 2


async def test_a_large_list_is_not_compressed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Connection, "_deflated", lambda *_: pytest.fail("it was compressed"))
    view = RoomView("r")
    view.reset("e", 1, [member(f"u{number}", "x" * 4000) for number in range(200)])
    async with (
        fanout_over_sockets(compression=True) as (served, _, fanout),
        connect(served.url, compression="deflate", max_size=None) as socket,
    ):
        await served.handler.until(lambda: len(served.handler.opened_) == 1)
        fanout.snapshots.send(served.handler.opened_[0], MembersReply("r", "e", 1, 200), view)
        assert len((await receive(socket))["members"]) == 200


async def test_who_is_sent_a_list_pays_for_the_time_to_compress_it():
    view = RoomView("r")
    view.reset("e", 1, [member(f"u{number}", "x" * 4000) for number in range(15)])
    async with (
        fanout_over_sockets(compression=True) as (served, _, fanout),
        connect(served.url, compression="deflate") as deflated,
        connect(served.url, compression=None) as plain,
    ):
        await served.handler.until(lambda: len(served.handler.opened_) == 2)
        loop = asyncio.get_running_loop()
        lists = PaidLists(fanout.snapshots, CostLimiter(400, 4000), loop.time)
        prices = [
            lists.send(connection, MembersReply("r", "e", 1, 15), view)
            for connection in served.handler.opened_
        ]
        assert await receive(deflated) == await receive(plain)
        assert prices[0] > prices[1] > 5  # for the bytes alone


async def test_no_data_takes_much_longer_to_compress_than_other_data():
    # At its usual level zlib looks for the longest of many matches, which takes long with two letters only.
    two, many = (
        bytes(random.Random(1).choices(letters, k=65_536)) for letters in (b"ab", b"abcdefghijklmnop")
    )
    async with fanout_over_sockets(compression=True) as (served, _, _), connect(served.url):
        await served.handler.until(lambda: len(served.handler.opened_) == 1)
        (connection,) = served.handler.opened_

        def seconds(payload: bytes) -> float:
            began = thread_time()
            connection._deflated(payload, connection._parser)
            return thread_time() - began

        assert min(seconds(two) for _ in range(5)) < 2 * min(seconds(many) for _ in range(5))


@pytest.mark.parametrize("compression", [True, False])
async def test_connections_of_every_codec_receive_the_diffs(compression):
    async with (
        fanout_over_sockets(compression=compression) as (served, roster, fanout),
        connect(served.url, compression="deflate") as deflated,
        connect(served.url, compression=None) as plain,
        connect(served.url, compression=None, subprotocols=[Subprotocol("reactor.msgpack")]) as packed,
    ):
        await served.handler.until(lambda: len(served.handler.opened_) == 3)
        assert [connection.compressed for connection in served.handler.opened_] == [compression, False, False]
        for number, connection in enumerate(served.handler.opened_):
            add_member(roster, connection, "r", f"u{number}")
        for version in range(10):
            fanout.send_diff(RoomDiff("r", "e", version, version + 1, 1, [member("x" * 100)], [], []))
        received = [[await receive(socket) for _ in range(2)] for socket in (deflated, plain, packed)]
        assert received[0] == received[1] == received[2]
        assert [message["version"] for message in received[0]] == [1, 10]
