"""The recipes of the document on people, each as it stands there: two pages on two nodes, one is killed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.async_api import Browser, Locator, Page, WebSocket, expect

from reactor.presence.api import Presence
from tests.browser.serving import files_of
from tests.docs.documents import example
from tests.support.nodes import NodeProcess
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
]  # as the browser, which starts once


class Window:
    """A page in a browser, and the messages that it has received, by connection."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.received: list[list[dict[str, Any]]] = []
        page.on("websocket", self._opened)

    def _opened(self, socket: WebSocket) -> None:
        messages: list[dict[str, Any]] = []
        self.received.append(messages)
        socket.on("framereceived", lambda frame: messages.append(json.loads(frame)))

    async def reads(self, selector: str, *texts: str) -> None:
        await expect(self.page.locator(selector)).to_have_text(list(texts))

    def button(self, text: str) -> Locator:
        return self.page.get_by_role("button", name=text)

    async def returned(self, kind: str) -> None:
        """Wait until it has received a message of this type on a connection after the first one."""
        await until(lambda: any(one["type"] == kind for messages in self.received[1:] for one in messages))


class Fleet:
    """Two nodes at one address, as behind a load balancer."""

    def __init__(self, browser: Browser, doomed: NodeProcess, other: NodeProcess, balancer: Proxy) -> None:
        self._browser = browser
        self._doomed = doomed
        self._other = other
        self._balancer = balancer

    @classmethod
    @asynccontextmanager
    async def started(cls, browser: Browser, server: Server) -> AsyncIterator["Fleet"]:
        settings = {"grace": 10, "close_grace": 0.2}
        async with (
            NodeProcess.start(server, **settings) as doomed,
            NodeProcess.start(server, **settings) as other,
            Proxy.to(doomed.port) as balancer,
        ):
            try:
                yield cls(browser, doomed, other, balancer)
            finally:
                for context in browser.contexts:
                    await context.close()

    def page(self, name: str) -> str:
        """The page of a recipe, with the address of this fleet."""
        return example(name, "html").replace("127.0.0.1:8765", f"127.0.0.1:{self._balancer.port}")

    async def open(self, address: str) -> tuple[Window, Window]:
        """Ann's window, on the node that will be killed, and Bob's on the other one."""
        windows = []
        for user, node in (("ann", self._doomed), ("bob", self._other)):
            self._balancer.target = node.port
            window = Window(await (await self._browser.new_context()).new_page())
            await window.page.goto(f"{address}?user={user}")
            await until(lambda: bool(window.received and window.received[0]))  # noqa: B023 - called at once
            windows.append(window)
        ann, bob = windows
        return ann, bob

    async def kill_a_node(self) -> None:
        await self._doomed.kill()


async def test_a_friends_list_with_last_seen(browser: Browser, bundled_server: Server, tmp_path: Path):
    async with Fleet.started(browser, bundled_server) as fleet:
        (tmp_path / "friends.html").write_text(fleet.page("friends"))
        with files_of(tmp_path) as site:
            ann, bob = await fleet.open(f"{site}/friends.html")
            await ann.reads("li", "bob: online", "cleo: offline")
            await bob.reads("li", "ann: online", "cleo: offline")
            await fleet.kill_a_node()
            await ann.returned("people:state")
            await ann.reads("li", "bob: online", "cleo: offline")
            await bob.page.close()
            await ann.reads("li", "bob: seen this minute", "cleo: offline")
            # Ann returned within the grace, so that Bob never saw her go.
            changes = [one for one in bob.received[0] if one["type"] == "people:diff"]
            assert "offline" not in str([person for one in changes for person in one["changed"]])


async def test_a_lobby_with_live_counts(browser: Browser, bundled_server: Server, tmp_path: Path):
    async with Fleet.started(browser, bundled_server) as fleet:
        (tmp_path / "lobby.html").write_text(fleet.page("lobby"))
        with files_of(tmp_path) as site:
            ann, bob = await fleet.open(f"{site}/lobby.html")
            for window in (ann, bob):
                await window.reads("button", "chess: 0 here", "go: 0 here", "poker: 0 here")
            await ann.button("go").click()
            await bob.button("chess").click()
            for window in (ann, bob):
                await window.reads("button", "chess: 1 here", "go: 1 here", "poker: 0 here")
            await fleet.kill_a_node()
            await ann.returned("room:joined")
            await bob.button("go").click()
            for window in (ann, bob):
                await window.reads("button", "chess: 0 here", "go: 2 here", "poker: 0 here")
                await window.reads("#present", "go: ann, bob")


async def test_moderation(browser: Browser, bundled_server: Server, tmp_path: Path):
    async with Fleet.started(browser, bundled_server) as fleet:
        (tmp_path / "room.html").write_text(fleet.page("moderation-page"))
        async with back_end(bundled_server, tmp_path / "room.html") as site:
            ann, bob = await fleet.open(f"{site}/")
            for window in (ann, bob):
                await window.reads("li span", "ann", "bob")
            await ann.button("Ban").last.click()
            await expect(bob.page.get_by_role("alert")).to_contain_text("Be kind. You may return at ")
            await ann.reads("li span", "ann")
            await fleet.kill_a_node()
            await ann.returned("room:joined")
            await ann.reads("li span", "ann")
            await bob.page.reload()
            await expect(bob.page.get_by_role("alert")).to_contain_text("Be kind. You may return at ")
            await bob.page.evaluate("fetch('/bans/bob', { method: 'DELETE' })")
            await bob.page.reload()
            for window in (ann, bob):
                await window.reads("li span", "ann", "bob")
            async with Presence.open(bundled_server.socket_url) as presence:
                assert [ban async for ban in presence.bans()] == []


@asynccontextmanager
async def back_end(server: Server, page: Path) -> AsyncIterator[str]:
    """Serve the application of the recipe; gives the address."""
    names: dict[str, Any] = {}
    code = example("moderation").replace("redis://localhost:6379", server.url)
    exec(code.replace('"room.html"', repr(str(page))), names)
    serving = uvicorn.Server(uvicorn.Config(names["app"], port=0, log_level="warning"))
    task = asyncio.create_task(serving.serve())
    try:
        await until(lambda: serving.started)
        port = serving.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        serving.should_exit = True
        await task
