"""Rooms that the Python client watches without being in them."""

from typing import Any

import pytest

from reactor.client import Client, Status, WatchedRoom
from reactor.errors import Refused
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.signing import SECRET, token
from tests.support.waiting import until
from tests.system.client.clients import client_of


def changes_of(room: WatchedRoom) -> list[tuple[str, str]]:
    changes: list[tuple[str, str]] = []
    room.on("join", lambda event: changes.append(("join", event.member.user_id)))
    room.on("leave", lambda event: changes.append((f"leave {event.reason}", event.member.user_id)))
    return changes


async def test_a_watched_room_follows_its_members(bundled_server: Server) -> None:
    async with served(bundled_server) as node, client_of(node) as page, client_of(node) as other:
        ann = await other.join("lobby", user_id="ann")
        async with await page.watch("lobby") as room:
            changes = changes_of(room)
            assert (list(room.members), room.view, room.status) == (["ann"], "members", Status.CONNECTED)
            counted = await page.watch("attic", view="count")
            await other.join("attic", user_id="ann")
            await until(lambda: counted.count == 1)
            bob = await other_member(node, "bob")
            await until(lambda: room.count == 2)
            await bob.close()
            await until(lambda: list(room.members) == ["ann"])
            assert changes == [("join", "bob"), ("leave left", "bob")]
            events = [event.kind async for event in first(room, 1)]
            assert events == ["sync"]
            assert ann.count == 1
        assert room.status is Status.CLOSED
        assert await room.ended() is None
        counted.close()
        await until(lambda: node.handler.observers.watched == 0)


async def first(room: WatchedRoom, number: int) -> Any:
    async for event in room:
        yield event
        number -= 1
        if not number:
            return


async def other_member(node: Any, user_id: str) -> Client:
    client = client_of(node)
    await client.__aenter__()
    await client.join("lobby", user_id=user_id)
    return client


async def test_after_a_lost_connection_only_differences_are_reported(bundled_server: Server) -> None:
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port) as page,
        client_of(node) as other,
    ):
        await other.join("lobby", user_id="ann")
        room = await page.watch("lobby")
        changes = changes_of(room)
        proxy.cut()
        await until(lambda: room.status is Status.RECONNECTING)
        bob = await other_member(node, "bob")
        await until(lambda: room.status is Status.CONNECTED)
        await until(lambda: room.count == 2)
        assert changes == [("join", "bob")]
        await bob.close()


async def test_what_is_refused_is_an_error_of_that_call(bundled_server: Server) -> None:
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        client_of(node, token=token(rooms=["lobby"])) as page,
    ):
        with pytest.raises(Refused, match="does not allow watching"):
            await page.watch("attic")
        await page.watch("lobby")
        with pytest.raises(Refused, match="already"):
            await page.watch("lobby")
        with pytest.raises(Refused, match="view takes"):
            await page.watch("lobby", view="none")  # type: ignore[arg-type]
        assert page.status is Status.CONNECTED
