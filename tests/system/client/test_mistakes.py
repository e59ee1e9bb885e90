"""The most likely mistakes with the clients, on real servers: the sentence that each gets."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from reactor.client import Client, Room
from reactor.errors import ReactorError
from reactor.presence.api import Presence
from reactor.settings import Settings
from reactor.settings.rooms import read_rules
from tests.js.tools import installed, run_node
from tests.support.nodes import served
from tests.support.servers import Server
from tests.support.signing import SECRET, token

_CASES = Path(__file__).parents[2] / "cases" / "mistakes.json"
MISTAKES: list[dict[str, str]] = json.loads(_CASES.read_text(encoding="utf-8"))["mistakes"]


class Servers(NamedTuple):
    """The addresses of a server open to all and of one that requires tokens; a token for the lobby."""

    url: str
    secured: str
    token: str


@asynccontextmanager
async def servers(redis: Server) -> AsyncIterator[Servers]:
    rules = read_rules({"full": {"max_members": 1}}, "test")
    async with (
        served(redis, rooms=rules) as node,
        served(redis, auth_secret=SECRET, namespace="secured") as secured,
        Presence.open(Settings(redis_url=redis.socket_url)) as presence,
    ):
        urls = [f"ws://127.0.0.1:{each.gateway.port}/ws" for each in (node, secured)]
        await presence.ban("ann", "banned", for_="10m", message="Be kind.")
        async with Client(urls[0]) as bob:
            await bob.join("full", user_id="bob")
            yield Servers(urls[0], urls[1], token(rooms=["lobby"]))


class Uses:
    """A client without and one with a token, and rooms of the first."""

    def __init__(self, at: Servers, client: Client, with_token: Client, room: Room, left: Room) -> None:
        self.at = at
        self.client = client
        self.with_token = with_token
        self.room = room
        self.left = left


async def entered(client: Client) -> None:
    async with client:
        await client.join("lobby", user_id="ann")


async def no_token_yet() -> str:
    return "abc"


async def awaited(uses: Uses) -> None:
    coroutine = no_token_yet()
    try:
        Client(uses.at.url, token=coroutine)  # type: ignore[arg-type]
    finally:
        coroutine.close()


async def watched_twice(uses: Uses) -> None:
    async with await uses.client.watch("twice"):
        await uses.client.watch("twice")


async def closed(uses: Uses) -> None:
    async with Client(uses.at.url) as client:
        pass
    await client.join("hall", user_id="ann")


async def calls(uses: Uses, name: Any) -> None:
    """Register something for an event of people."""
    async with await uses.client.people(["ann"]) as people:
        people.on(name, print)


CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "no address": lambda uses: entered(Client(None)),  # type: ignore[arg-type]
    "an address of a page": lambda uses: entered(Client("http://127.0.0.1/ws")),
    "an unknown codec": lambda uses: entered(Client(uses.at.url, codec="xml")),  # type: ignore[arg-type]
    "a call without the block": lambda uses: Client(uses.at.url).join("lobby", user_id="ann"),
    "a second block": lambda uses: entered(uses.client),
    "a token that is still awaited": awaited,
    "a token function that returns the whole answer": lambda uses: entered(
        Client(uses.at.secured, token=lambda: {"token": uses.at.token})  # type: ignore[arg-type, return-value]
    ),
    "no token where one is required": lambda uses: entered(Client(uses.at.secured)),
    "a token of another secret": lambda uses: entered(Client(uses.at.secured, token=f"{uses.at.token}x")),
    "a room that the token does not allow": lambda uses: uses.with_token.join("hall"),
    "a user other than the token's": lambda uses: uses.with_token.join("lobby", user_id="bob"),
    "watching a room that the token does not allow": lambda uses: uses.with_token.watch("hall"),
    "no room": lambda uses: uses.client.join(None, user_id="ann"),
    "an empty room": lambda uses: uses.client.join("", user_id="ann"),
    "no user": lambda uses: uses.client.join("hall"),
    "a user's record in place of the id": lambda uses: uses.client.join("hall", user_id={"id": "ann"}),
    "a name that is no text": lambda uses: uses.client.join("hall", user_id="ann", username=7),
    "an unknown view": lambda uses: uses.client.join("hall", user_id="ann", view="all"),
    "data that JSON cannot hold": lambda uses: uses.room.update({"tags": set()}),
    "data that is too big": lambda uses: uses.room.update("x" * 5000),
    "an event that does not exist": lambda uses: asyncio.to_thread(uses.room.on, "joined", print),
    "no function for an event": lambda uses: asyncio.to_thread(uses.room.on, "join", None),
    "a coroutine function for an event": lambda uses: asyncio.to_thread(uses.room.on, "join", entered),
    "a patch that is no object": lambda uses: uses.room.patch("blue"),
    "one receiver in place of a list": lambda uses: uses.room.send("hello", to="bob"),
    "an update of a room that was left": lambda uses: uses.left.update("blue"),
    "a second user on one client": lambda uses: uses.client.join("lobby", user_id="bob"),
    "watching with a view of members alone": lambda uses: uses.client.watch("hall", view="none"),
    "watching no room": lambda uses: uses.client.watch(None),
    "watching a room twice": watched_twice,
    "one user in place of a list": lambda uses: uses.client.people("ann"),
    "a number in place of a list of users": lambda uses: uses.client.people(7),
    "a user in a list who is not known yet": lambda uses: uses.client.people(["ann", None]),
    "an event of rooms for people": lambda uses: calls(uses, "join"),
    "more people than a connection may watch": lambda uses: uses.client.people(range(1001)),
    "the own room of another user": lambda uses: uses.client.join("@bob", user_id="ann"),
    "online without a user": lambda uses: uses.client.online(None),
    "a user who is banned": lambda uses: uses.client.join("banned", user_id="ann"),
    "a room that is full": lambda uses: uses.client.join("full", user_id="ann"),
    "a client that was closed": closed,
}


async def test_each_mistake_gets_its_sentence_in_python(bundled_server: Server) -> None:
    expected = {one["name"]: one["python"] for one in MISTAKES if "python" in one}
    assert len(expected) >= 30
    found: dict[str, str] = {}
    async with (
        servers(bundled_server) as at,
        Client(at.url) as client,
        Client(at.secured, token=at.token) as with_token,
    ):
        left = await client.join("left", user_id="ann")
        await left.leave()
        uses = Uses(at, client, with_token, await client.join("lobby", user_id="ann"), left)
        for name, call in CALLS.items():
            try:
                await call(uses)
            except (ReactorError, RuntimeError, TypeError, ValueError) as error:
                found[name] = str(error)
            assert client.status == "connected", name
    assert found == expected


async def test_each_mistake_gets_its_sentence_in_javascript(bundled_server: Server) -> None:
    installed()
    async with servers(bundled_server) as at:
        await run_node(
            "--test", "--test-reporter=spec", "mistakes.test.mjs",
            REACTOR_URL=at.url, SECURED_URL=at.secured, TOKEN=at.token,
        )  # fmt: skip
