"""The recipes of the document on people, as they stand there, in two browsers on two nodes: one is killed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
import httpx
import pytest
import uvicorn

from reactor.presence.api import Presence
from tests.browser.bidi import firefox
from tests.browser.cdp import chromium
from tests.browser.serving import files_of
from tests.docs.documents import example
from tests.support.nodes import NodeProcess
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.slow

# Keeps what the page has received, by connection, and every state of its lists, buttons and paragraphs.
_RECORDER = """() => {
  const received = (window.received = []);
  window.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      const messages = [];
      received.push(messages);
      this.addEventListener("message", ({ data }) => messages.push(JSON.parse(data)));
    }
  };
  const texts = (selector) => [...document.querySelectorAll(selector)].map((part) => part.textContent);
  const states = (window.states = []);
  window.state = () => JSON.stringify(texts("li, #rooms button, p"));
  const observer = new MutationObserver(() => states.at(-1) !== state() && states.push(state()));
  observer.observe(document, { subtree: true, childList: true, characterData: true });
}"""


class Tab(Protocol):
    async def read(self, expression: str) -> Any: ...
    async def go(self, address: str) -> None: ...
    async def close(self) -> None: ...


class Window:
    """A page in a browser."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    async def comes_to(self, expression: str) -> None:
        """Wait until it is true in the page."""
        with anyio.move_on_after(PATIENCE):
            while not await self.tab.read(f"Boolean({expression})"):  # noqa: ASYNC110 - nothing notifies
                await anyio.sleep(0.02)
            return
        raise AssertionError(f"{expression}; the page shows {await self.tab.read('window.state?.()')}")

    async def shows(self, *texts: str) -> None:
        """Wait until lists, buttons and paragraphs have these texts."""
        await self.comes_to(f"window.state?.() === {json.dumps(json.dumps(texts, separators=(',', ':')))}")

    async def shown(self, place: int) -> list[str]:
        """What has stood at a place of these so far, but for the same again."""
        states = [json.loads(state) for state in json.loads(await self.tab.read("JSON.stringify(states)"))]
        texts = [state[place] for state in states if len(state) > place and state[place]]
        return [text for i, text in enumerate(texts) if i == 0 or text != texts[i - 1]]

    async def returned(self, kind: str) -> None:
        """Wait until it has received a message of this type on a connection after the first one."""
        await self.comes_to(f"received.slice(1).flat().some(({{ type }}) => type === {json.dumps(kind)})")

    async def press(self, selector: str) -> None:
        await self.tab.read(f"document.querySelector({json.dumps(selector)}).click()")


class Fleet:
    """Two nodes at one address, as behind a load balancer."""

    def __init__(self, doomed: NodeProcess, other: NodeProcess, balancer: Proxy, lost: RawClient) -> None:
        self._doomed = doomed
        self._other = other
        self._balancer = balancer
        self.lost = lost
        """A client of the node that will be killed, which does not return."""

    @classmethod
    @asynccontextmanager
    async def started(cls, server: Server) -> AsyncIterator["Fleet"]:
        settings = {"grace": 10, "close_grace": 0.2, "lease": 3}
        async with (
            NodeProcess.start(server, **settings) as doomed,
            NodeProcess.start(server, **settings) as other,
            Proxy.to(doomed.port) as balancer,
            RawClient.connect(doomed) as lost,
        ):
            yield cls(doomed, other, balancer, lost)

    def page(self, name: str) -> str:
        """The page of a recipe, with the address of this fleet."""
        return example(name, "html").replace("127.0.0.1:8765", f"127.0.0.1:{self._balancer.port}")

    async def open(self, tabs: tuple[Tab, Tab], address: str) -> tuple[Window, Window]:
        """Ann's window, on the node that will be killed, and Bob's on the other one."""
        for tab, user, node in zip(tabs, ("ann", "bob"), (self._doomed, self._other), strict=True):
            self._balancer.target = node.port
            await tab.go(f"{address}?user={user}")
            await Window(tab).comes_to("received[0]?.length")
        ann, bob = map(Window, tabs)
        return ann, bob

    async def kill_a_node(self) -> None:
        await self._doomed.kill()


@pytest.fixture(params=[(chromium, firefox), (firefox, chromium)], ids=["Chromium", "Firefox"])
async def tabs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Tab, Tab]]:
    """A tab in each of two browsers; the first one's node is to be killed."""
    one, other = request.param
    async with one(tmp_path / "one") as ann, other(tmp_path / "other") as bob:
        opened = []
        for browser in (ann, bob):
            await browser.tab("about:blank")  # so that the browser goes on when the other tab is closed
            opened.append(await browser.tab("about:blank"))
            await opened[-1].preload(_RECORDER)
        yield opened[0], opened[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    return tmp_path / "site"


async def test_a_friends_list_with_last_seen(tabs: tuple[Tab, Tab], bundled_server: Server, folder: Path):
    async with Fleet.started(bundled_server) as fleet:
        (folder / "friends.html").write_text(fleet.page("friends"))
        with files_of(folder) as site:
            ann, bob = await fleet.open(tabs, f"{site}/friends.html")
            await ann.shows("bob: online", "cleo: offline")
            await fleet.lost.join("@cleo", "cleo")
            await ann.shows("bob: online", "cleo: online")
            await bob.shows("ann: online", "cleo: online")
            await fleet.kill_a_node()
            await ann.returned("people:state")
            # Cleo goes after the lease and the grace. Ann returned before that: Bob never saw her go.
            for window, friend in ((ann, "bob"), (bob, "ann")):
                await window.shows(f"{friend}: online", "cleo: seen this minute")
                assert (await window.shown(0))[-1] == f"{friend}: online"
                cleo = ["cleo: …", "cleo: offline", "cleo: online", "cleo: seen this minute"]
                assert await window.shown(1) == cleo
            assert await bob.shown(0) == ["ann: …", "ann: online"]
            await bob.tab.close()
            await ann.shows("bob: seen this minute", "cleo: seen this minute")


async def test_a_lobby_with_live_counts(tabs: tuple[Tab, Tab], bundled_server: Server, folder: Path):
    async with Fleet.started(bundled_server) as fleet:
        (folder / "lobby.html").write_text(fleet.page("lobby"))
        with files_of(folder) as site:
            ann, bob = await fleet.open(tabs, f"{site}/lobby.html")
            for window in (ann, bob):
                await window.shows("chess: 0 here", "go: 0 here", "poker: 0 here", "")
            await ann.press("button:nth-of-type(2)")
            await bob.press("button:nth-of-type(1)")
            await fleet.lost.join("poker", "cleo")
            await ann.shows("chess: 1 here", "go: 1 here", "poker: 1 here", "go: ann")
            await bob.shows("chess: 1 here", "go: 1 here", "poker: 1 here", "chess: bob")
            await fleet.kill_a_node()
            await ann.returned("room:joined")
            await bob.press("button:nth-of-type(2)")
            for window in (ann, bob):
                await window.shows("chess: 0 here", "go: 2 here", "poker: 0 here", "go: ann, bob")
                # Neither did Ann's room lose her, nor did the ghost leave twice.
                assert await window.shown(1) == ["go: 0 here", "go: 1 here", "go: 2 here"]
                assert await window.shown(2) == ["poker: 0 here", "poker: 1 here", "poker: 0 here"]


async def test_moderation(tabs: tuple[Tab, Tab], bundled_server: Server, folder: Path):
    banned = 'document.querySelector("#notice")?.textContent.startsWith("Be kind. You may return at ")'
    async with Fleet.started(bundled_server) as fleet:
        (folder / "room.html").write_text(fleet.page("moderation-page"))
        async with back_end(bundled_server, folder / "room.html") as site:
            ann, bob = await fleet.open(tabs, f"{site}/")
            await fleet.lost.join("lobby", "cleo")
            for window in (ann, bob):
                await window.shows("", "ann Ban", "bob Ban", "cleo Ban")
            await fleet.kill_a_node()
            await ann.returned("room:joined")
            await ann.press("li:nth-of-type(2) button")
            await bob.comes_to(banned)
            await ann.shows("", "ann Ban")
            await bob.tab.go(f"{site}/?user=bob")
            await bob.comes_to(banned)
            assert await bob.shown(1) == []
            async with httpx.AsyncClient() as http:
                assert (await http.delete(f"{site}/bans/bob")).json() == {"lifted": True}
            await bob.tab.go(f"{site}/?user=bob")
            for window in (ann, bob):
                await window.shows("", "ann Ban", "bob Ban")
            async with Presence.open(bundled_server.socket_url) as presence:
                assert [ban async for ban in presence.bans()] == []


@asynccontextmanager
async def back_end(server: Server, page: Path) -> AsyncIterator[str]:
    """Serve the application of the recipe; gives the address."""
    names: dict[str, Any] = {}
    code = example("moderation").replace("redis://localhost:6379", server.url)
    exec(code.replace('"room.html"', repr(str(page))), names)
    serving = uvicorn.Server(uvicorn.Config(names["app"], port=0, log_level="warning"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving.serve)
        try:
            await until(lambda: serving.started)
            port = serving.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"
        finally:
            serving.should_exit = True
