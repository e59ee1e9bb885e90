"""Users whom the Python client watches, whatever the rooms."""

import asyncio

import anyio
import pytest

from reactor.client import Status, WatchedPeople
from reactor.errors import ConnectionClosed, Refused
from reactor.membership.people_watch import PeopleWatches
from reactor.protocol.messages import Person
from reactor.server.node import Node
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.signing import SECRET, token
from tests.support.waiting import PATIENCE, until
from tests.system.client.clients import client_of


def watched(node: Node) -> int:
    """How many users the connections of a node watch."""
    assert isinstance(node.handler.people, PeopleWatches)
    return len(node.handler.people)


def changes_of(people: WatchedPeople) -> list[tuple[str, str]]:
    changes: list[tuple[str, str]] = []
    people.on("change", lambda changed: changes.extend((each.user_id, each.status) for each in changed))
    return changes


async def test_people_are_followed_until_it_is_closed(bundled_server: Server) -> None:
    async with served(bundled_server) as node, client_of(node) as page, client_of(node) as other:
        async with await page.people(["ann", 7]) as people:
            assert people.ids == ("ann", "7")
            assert (people.get("ann"), people.status) == (Person("ann", "offline"), Status.CONNECTED)
            changes = changes_of(people)
            ann = await other.join("lobby", user_id="ann")
            await until(lambda: changes == [("ann", "online")])
            await ann.away()
            await until(lambda: changes[1:] == [("ann", "away")])
            await ann.leave()
            await until(lambda: changes[2:] == [("ann", "offline")])
            assert people.people["ann"].last_seen
            iterator = aiter(people)
            assert [(await anext(iterator)).user_id for _ in people.ids] == ["ann", "7"]
            await other.join("hall", user_id=7)
            assert (await anext(iterator)).status == "online"
        assert people.status is Status.CLOSED
        assert await people.ended() is None
        assert [person async for person in iterator] == []
        await until(lambda: watched(node) == 0)
        with pytest.raises(ConnectionClosed):
            await people.add(["bob"])


async def test_an_iterator_outlives_a_cancelled_read_and_may_have_several_readers(
    bundled_server: Server,
) -> None:
    async with served(bundled_server) as node, client_of(node) as page, client_of(node) as other:
        people = await page.people(["ann", "bob"])
        iterator = aiter(people)
        assert [(await anext(iterator)).user_id for _ in people.ids] == ["ann", "bob"]
        with anyio.move_on_after(0) as given_up:
            await anext(iterator)
        assert given_up.cancelled_caught
        readers = [asyncio.ensure_future(anext(iterator)) for _ in range(2)]
        await other.join("lobby", user_id="ann")
        await other.join("hall", user_id="bob")
        with anyio.fail_after(PATIENCE):
            persons = await asyncio.gather(*readers)
        assert {(person.user_id, person.status) for person in persons} == {
            ("ann", "online"),
            ("bob", "online"),
        }
        people.close()
        assert [person async for person in iterator] == []


async def test_a_removal_takes_a_list_of_ids_as_an_addition_does(bundled_server: Server) -> None:
    async with served(bundled_server) as node, client_of(node) as page:
        people = await page.people(["7", "78"])
        for mistake in ("78", None, [None], ["\ud83d"]):
            with pytest.raises(Refused) as refused:
                people.remove(mistake)  # type: ignore[arg-type]
            assert refused.value.code == "bad_request"
        assert [*people.ids] == ["7", "78"]
        people.remove([78])
        assert [*people.ids] == ["7"]


async def test_users_are_added_and_removed_and_shared(bundled_server: Server) -> None:
    async with served(bundled_server) as node, client_of(node) as page, client_of(node) as other:
        people, more = await page.people(["ann"]), await page.people(["ann", "bob"])
        await people.add(["cy", "ann"])
        assert people.ids == ("ann", "cy")
        people.remove(["ann", "cy"])
        await until(lambda: watched(node) == 2)
        changes, removed = changes_of(more), changes_of(people)
        await other.join("lobby", user_id="ann")
        await until(lambda: changes == [("ann", "online")])
        assert (people.get("ann"), removed) == (None, [])


async def test_after_a_lost_connection_only_differences_are_changes(bundled_server: Server) -> None:
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port) as page,
        client_of(node) as other,
    ):
        await other.join("lobby", user_id="ann")
        people = await page.people(["ann", "bob"])
        await until(lambda: people.people["ann"].status == "online")
        seen: list[str] = []
        people.on("change", lambda changed: seen.extend(f"{each.user_id} {each.status}" for each in changed))
        people.on("status", seen.append)
        proxy.withhold()
        proxy.cut()
        await until(lambda: people.status is Status.RECONNECTING)
        await other.join("hall", user_id="bob")
        proxy.release()
        await until(lambda: people.status is Status.CONNECTED)
        assert seen == [Status.RECONNECTING, "bob online", Status.CONNECTED]


async def test_a_refusal_changes_nothing(bundled_server: Server) -> None:
    async with served(bundled_server) as node, client_of(node) as page:
        people = await page.people(range(1000))
        with pytest.raises(Refused) as refused:
            await people.add(["one", "more"])
        assert refused.value.code == "too_many_people"
        assert len(people.ids) == len(people.people) == 1000
        people.close()
        with pytest.raises(Refused):
            await page.people(range(1001))
        await until(lambda: watched(node) == 0)
        with pytest.raises(Refused, match="a list of ids"):
            await page.people("ann")
        await page.close()
        with pytest.raises(ConnectionClosed):
            await page.people(["ann"])


async def test_a_user_is_online_without_a_room_and_whatever_rooms_the_token_allows(
    bundled_server: Server,
) -> None:
    watching = token(sub="bob", people=["*"], where=True)
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        client_of(node, token=watching) as page,
        client_of(node, token=token(rooms=[])) as other,
    ):
        people = await page.people(["ann"])
        changes = changes_of(people)
        online = await other.online("ann")
        await until(lambda: changes == [("ann", "online")])
        assert people.people["ann"].rooms == []
        await online.away()
        await until(lambda: changes[1:] == [("ann", "away")])
        await online.leave()
        await until(lambda: changes[2:] == [("ann", "offline")])
        for user_id in ("cy", "x" * 256):
            with pytest.raises(Refused):
                await other.online(user_id)
