"""A call with an argument that cannot be sent is refused by itself; nothing else changes, then or later."""

import asyncio
from enum import Enum
from typing import Any

import pytest

from reactor.client import Backoff, Client, Room, Status
from reactor.errors import Refused, SettingError
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.client.clients import RoomRecorder, client_of
from tests.system.client.interceptor import Interceptor

CYCLE: list[Any] = []
CYCLE.append(CYCLE)
UNSENDABLE = [
    {object()}, {"t": {1, 2}}, {"t": 2**70}, {"t": "Ann \ud83d"}, {"\ud83d": 1}, [float("nan")], CYCLE, b"x",
    {1: 2},
]  # fmt: skip


async def refusals(client: Client, room: Room) -> list[tuple[str, str]]:
    """The code and the message of each call with something that cannot be sent."""
    calls = [room.update(data) for data in UNSENDABLE]
    calls += [room.update(username="Ann \ud83d"), room.update(username=7)]  # type: ignore[arg-type]
    joins = [client.join("lobby", user_id="ann", data=data) for data in UNSENDABLE]
    joins += [
        client.join("lobby", user_id="ann", username="\udc00"),
        client.join("new \ud83d", user_id="ann"),
        client.join("new", user_id="\udc00"),
        client.join("new", user_id=1.5),  # type: ignore[arg-type]
        client.join(10**5000, user_id="ann"),
        client.join("new", user_id=-(10**5000)),
        client.join("new", user_id="ann", view="all"),  # type: ignore[arg-type]
    ]
    others = [client.members("\ud83d"), client.count("\ud83d"), client.is_present("lobby", "\ud83d")]
    others += [client.count(10**5000), client.members_page("lobby", cursor="\ud83d")]
    others += [room.send(1, to=[10**5000]), client.watch(10**5000), client.people([10**5000])]
    done = await asyncio.gather(*calls, *joins, *others, return_exceptions=True)
    assert all(isinstance(one, Refused) for one in done), done
    return [(one.code, str(one)) for one in done if isinstance(one, Refused)]


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_what_cannot_be_sent_is_refused_and_leaves_no_trace_in_a_return(bundled_server: Server, codec):
    async with (
        served(bundled_server, heartbeat_interval=0.2) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port, codec=codec) as client,
    ):
        room = await client.join("lobby", user_id="ann", username="Ann", data={"ok": 1})
        other = await client.join("hall", user_id="ann", data={"ok": 2})
        recorders = RoomRecorder(room), RoomRecorder(other)
        found = await refusals(client, room)
        assert {code for code, _ in found} == {"bad_request"}
        assert found[0][1].startswith("data is of type set")
        assert found[2][1] == "data.t is a whole number of more than 64 bits: pass it as text"
        proxy.cut()
        for recorder in recorders:
            await recorder.until_statuses(Status.RECONNECTING, Status.CONNECTED)
            assert recorder.room.me is not None
        assert room.members["ann"].data == {"ok": 1}
        assert other.members["ann"].data == {"ok": 2}
        # Rooms behind it are joined, and heartbeats go on.
        later = await client.join("later", user_id="ann")
        refreshed = node.heartbeats.members
        await until(lambda: node.heartbeats.members > refreshed)
        assert {room.status, other.status, later.status} == {Status.CONNECTED}


async def test_data_is_copied_when_it_is_passed(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port) as client,
    ):
        data: dict[str, Any] = {"list": [1]}
        recorder = RoomRecorder(await client.join("lobby", user_id="ann", view="count", data=data))
        data["list"].append(object())
        proxy.cut()
        await recorder.until_statuses(Status.RECONNECTING, Status.CONNECTED)
        assert [member.data for member in await client.members("lobby")] == [{"list": [1]}]


async def test_what_exceeds_a_limit_is_refused_before_it_is_sent(bundled_server: Server):
    async with (
        served(bundled_server, max_data=100, max_message=400, max_id=50) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        room = await client.join("lobby", user_id="ann", username="Ann", data="small")
        (sent,) = interceptor.received
        for call, message in (
            (room.update("x" * 99), "data takes 101 bytes as JSON, and the server takes at most 100"),
            (
                room.update(username="ä" * 26),
                "username takes 52 bytes of UTF-8, .* at most 50",
            ),
            (client.join("x" * 51, user_id="ann"), "room_id takes 51 bytes"),
            (client.join("new", user_id="x" * 51), "user_id takes 51 bytes"),
            (client.join("new", user_id="ann", data="x" * 1000), "data takes 1002 bytes"),
        ):
            with pytest.raises(Refused, match=message) as refused:
                await call
            assert refused.value.code == "too_big"
        assert [message["type"] for message in sent] == ["join_room"]
        await room.update("x" * 98, username="y" * 50)
        assert client.status is Status.CONNECTED


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_a_first_join_that_is_too_big_ends_neither_the_client_nor_other_requests(
    bundled_server: Server, codec
):
    async with served(bundled_server, max_message=2000) as node, client_of(node, codec=codec) as client:
        # The limits are not known yet, so the server closes the connection with 1009.
        done = await asyncio.gather(
            client.join("one", user_id="ann", data="x" * 3000),
            client.join("two", user_id="ann", data="small"),
            client.count("three"),
            return_exceptions=True,
        )
        assert isinstance(done[0], Refused)
        assert done[0].code == "too_big"
        assert isinstance(done[1], Room)
        assert done[2] == 0
        assert done[1].status is Status.CONNECTED
        assert await client.count("one") == 0


async def test_a_close_with_1009_that_no_request_explains_costs_none(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        room = await client.join("lobby", user_id="ann", data={"ok": 1})
        updating = 0

        def closes(message: dict[str, Any]) -> int | None:
            nonlocal updating
            updating += message["type"] in ("room:update", "join_room")
            return 1009 if updating in (1, 2) else None

        interceptor.close_code = closes
        # A proxy that does not pass a list on closes so, whatever the client asked for.
        await room.update({"ok": 2})
        assert updating == 4
        assert room.status is Status.CONNECTED
        assert room.me is not None
        assert room.me.data == {"ok": 2}


class Word(str, Enum):  # noqa: UP042 - the text of a StrEnum is its value anyway
    """Text by a name, as before `StrEnum`."""

    LOBBY = "lobby"


class Number(int, Enum):
    """The same of a number."""

    SEVEN = 7


async def test_ids_and_names_are_the_text_itself_also_of_an_enumeration(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as client:
        room = await client.join(Word.LOBBY, user_id=Number.SEVEN, username=Word.LOBBY, data=[Word.LOBBY])
        assert (room.room_id, room.user_id) == ("lobby", "7")
        assert room.me is not None
        assert (room.me.username, room.me.data) == ("lobby", ["lobby"])


class Unreadable(dict[str, int]):
    """A dict that fails when it is read."""

    def items(self) -> Any:
        raise LookupError("the session is closed")


async def test_data_that_fails_when_it_is_read_is_refused(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as client:
        room = await client.join("lobby", user_id="ann")
        with pytest.raises(Refused, match=r"^data cannot be read \(LookupError") as refused:
            await room.update([Unreadable(a=1)])
        assert refused.value.code == "bad_request"


@pytest.mark.parametrize("name", ["request_timeout", "close_timeout", "heartbeat_interval"])
@pytest.mark.parametrize("value", [0, -1, "10", float("nan")])
def test_a_time_that_is_no_number_of_seconds_is_refused(name: str, value: Any):
    with pytest.raises(SettingError, match=f"^{name} takes a number of seconds above 0"):
        Client("ws://127.0.0.1:8765/ws", **{name: value})


@pytest.mark.parametrize("name", ["first", "cap", "stable", "restart"])
@pytest.mark.parametrize("value", [-1, "10", None, float("nan")])
def test_a_pause_that_is_no_number_of_seconds_is_refused(name: str, value: Any):
    with pytest.raises(SettingError, match=f"^{name} of Backoff takes a number of seconds"):
        Backoff(**{name: value})


async def test_a_return_that_is_refused_for_its_data_is_repeated_without_it(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        room = await client.join("lobby", user_id="ann", username="Ann", data="x" * 600)
        hall = await client.join("hall", user_id="ann")
        # As after a deployment with lower limits.
        interceptor.close_code = lambda message: 1009 if len(str(message)) > 500 else None
        await interceptor.close_all(1012)

        def returned_without_data() -> bool:
            joins = [said for said in interceptor.received[-1] if said["roomId"] == "lobby"]
            return bool(joins) and "data" not in joins[0]

        await until(returned_without_data)
        await until(lambda: room.status is hall.status is Status.CONNECTED)
        assert room.members["ann"].data == "x" * 600, "what the server has stays"
