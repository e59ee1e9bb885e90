import asyncio

import pytest

from reactor.client.watch import watch
from reactor.errors import ForceLeave, ServerUnreachable, SettingError
from reactor.presence.keys import Entry
from reactor.protocol.events import RoomEvent
from tests.support.nodes import served
from tests.support.servers import Server, free_port
from tests.support.waiting import until
from tests.system.client.clients import client_of, url_of


def lines(events: list[RoomEvent]) -> list[tuple[str, str, str | None, int]]:
    return [
        (event.kind, event.member.user_id if event.member else "", event.reason, event.count)
        for event in events
    ]


async def test_a_watcher_without_a_user_is_not_a_member(bundled_server: Server):
    events: list[RoomEvent] = []
    async with (
        served(bundled_server, max_members_view=2) as node,
        client_of(node) as one,
        client_of(node) as two,
    ):
        room = await one.join("lobby", user_id="ann")
        task = asyncio.ensure_future(watch(url_of(node), "lobby", events.append, every=0.06))
        await until(lambda: len(events) == 1)
        assert [member.user_id for member in events[0].members] == ["ann"]
        assert room.count == 1
        bob = await two.join("lobby", user_id="bob")
        await until(lambda: len(events) == 2)
        await bob.update(username="Bob")
        await until(lambda: len(events) == 3)
        async with client_of(node) as third:
            await third.join("lobby", user_id="cy")
            await until(lambda: len(events) == 4)
        await until(lambda: len(events) == 5)
        await bob.leave()
        await until(lambda: len(events) == 6)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert lines(events) == [
        ("sync", "", None, 1),
        ("join", "bob", None, 2),
        ("update", "bob", None, 2),
        ("sync", "", None, 3),
        ("sync", "", None, 2),
        ("leave", "bob", None, 1),
    ]
    assert events[3].members == ()


async def test_a_watcher_survives_an_outage_of_redis(bundled_server: Server):
    events: list[RoomEvent] = []
    async with served(bundled_server) as node, client_of(node) as one:
        task = asyncio.ensure_future(
            watch(url_of(node), "lobby", events.append, every=0.06, request_timeout=0.2)
        )
        await until(lambda: len(events) == 1)
        bundled_server.pause()
        await asyncio.sleep(0.5)  # longer than a request waits
        bundled_server.resume()
        await one.join("lobby", user_id="ann")
        await until(lambda: len(events) == 2)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert lines(events) == [("sync", "", None, 0), ("join", "ann", None, 1)]


async def test_a_watcher_with_a_user_gets_reasons_and_the_end(bundled_server: Server):
    events: list[RoomEvent] = []
    async with served(bundled_server) as node, client_of(node) as one:
        task = asyncio.ensure_future(watch(url_of(node), "lobby", events.append, user="eve"))
        await until(lambda: len(events) == 1)
        room = await one.join("lobby", user_id="ann")
        await until(lambda: len(events) == 2)
        await room.leave()
        await until(lambda: len(events) == 3)
        await node.store.kick(Entry("lobby", "eve"), "No peeping.")
        with pytest.raises(ForceLeave, match="No peeping"):
            await task
    assert lines(events) == [("sync", "", None, 1), ("join", "ann", None, 2), ("leave", "ann", "left", 1)]


async def test_watching_without_a_server_raises():
    with pytest.raises(ServerUnreachable):
        await watch(f"ws://127.0.0.1:{free_port()}/ws", "lobby", print)
    with pytest.raises(SettingError):
        await watch("lobby", "lobby", print)
