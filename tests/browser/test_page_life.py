"""Pages that are left, shown again, reloaded or closed, or cannot connect, in Chromium and Firefox."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import pytest

from reactor.membership.people_watch import PeopleWatches
from reactor.server.node import Node
from tests.browser.app_users import Watcher
from tests.browser.bidi import firefox
from tests.browser.cdp import Chromium, chromium
from tests.browser.cdp import Tab as ChromiumTab
from tests.browser.serving import files_of
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.slow

_PAGE = """<!doctype html><title>Room</title>%s<script type="module">
const query = new URLSearchParams(location.search);
const { ReactorClient } = await import(query.get("client"));
const client = (window.client = new ReactorClient(query.get("ws")));
window.errors = [];
client.on("connection-error", ({ message }) => errors.push(message));
addEventListener("pageshow", ({ persisted }) => {
  window.shown = { persisted };
  client.on("status", (status) => (window.shown[status] = true));
});
window.room = await client.join("lobby", { userId: "ann" });
</script>"""
_WATCHING = """<!doctype html><title>Watching</title><script type="module">
const query = new URLSearchParams(location.search);
const { ReactorClient } = await import(query.get("client"));
const { people } = await import(query.get("client").replace("client.js", "people.js"));
const client = (window.client = new ReactorClient(query.get("ws")));
const room = client.watch("lobby");
const counted = client.watch("hall", { view: "count" });
const friends = people(client, ["bob", "cy"]);
const seen = (window.seen = []);
addEventListener("pageshow", ({ persisted }) => (window.shown = { persisted }));
for (const kind of ["join", "leave"]) room.on(kind, ({ member }) => seen.push(`${kind} ${member.userId}`));
friends.on("change", (changed) => seen.push(...changed.map(({ userId, status }) => `${userId} ${status}`)));
const shown = ({ userId, status }) => `${userId} ${status}`;
const known = () => [room, friends, counted].every(({ status }) => status === "connected");
const users = () => friends.getSnapshot().people.map(shown);
window.state = () => [known(), ...room.members.keys(), counted.count, ...users()].join();
</script>"""
_FORBIDDEN = """<meta http-equiv="Content-Security-Policy" content="connect-src 'none'">"""
_STATUS = "window.room?.status"


class Tab(Protocol):
    async def read(self, expression: str) -> Any: ...
    async def go(self, address: str) -> None: ...
    async def back(self) -> None: ...
    async def close(self) -> None: ...


class Browser(Protocol):
    async def tab(self, address: str) -> Tab: ...


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of pages: room.html is in a room, watching.html watches, elsewhere.html has nothing."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "room.html").write_text(_PAGE % "")
    (folder / "watching.html").write_text(_WATCHING)
    (folder / "forbidden.html").write_text(_PAGE % _FORBIDDEN)
    (folder / "elsewhere.html").write_text("<!doctype html><title>Elsewhere</title>")
    with files_of(folder) as address:
        yield address


@pytest.fixture(params=[chromium, firefox], ids=["Chromium", "Firefox"])
async def browser(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[], AbstractAsyncContextManager[Browser]]:
    return lambda: request.param(tmp_path / "profile")


@asynccontextmanager
async def room_with_observer(server: Server, **settings: Any) -> AsyncIterator[tuple[Node, Watcher]]:
    async with served(server, **settings) as node, Watcher.connect(node) as bob:
        await bob.watch("lobby")
        yield node, bob


def page(site: str, port: int, name: str = "room.html", path: str = "/ws") -> str:
    host = f"127.0.0.1:{port}"
    query = urlencode({"client": f"http://{host}/client.js", "ws": f"ws://{host}{path}"}, quote_via=quote)
    return f"{site}/{name}?{query}"


async def comes_to(tab: Tab, expression: str, value: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := await tab.read(expression)) != value:
        assert time.monotonic() < deadline, f"{expression} is {found!r}, not {value!r}"
        await asyncio.sleep(0.02)


async def test_a_page_that_is_left_is_no_member_after_the_grace_and_back_as_soon_as_it_is_shown(
    site: str, browser: Any, bundled_server: Server
):
    async with room_with_observer(bundled_server, grace=1) as (node, bob), browser() as running:
        tab = await running.tab(page(site, node.gateway.port))
        await comes_to(tab, _STATUS, "connected")
        await tab.go(f"{site}/elsewhere.html")
        await bob.sees("joined ann", "left ann disconnected")
        await tab.back()
        await comes_to(tab, _STATUS, "connected")
        await bob.sees("joined ann", "left ann disconnected", "joined ann")
        if isinstance(running, Chromium):  # Firefox loads a page with a WebSocket again
            assert await tab.read("shown.persisted"), "the page came from the back/forward cache"
        assert await tab.read("String(errors)") == "", "it connected at the first attempt"


async def test_a_page_that_is_shown_again_within_the_grace_was_never_gone(
    site: str, browser: Any, bundled_server: Server
):
    async with room_with_observer(bundled_server, grace=60) as (node, bob), browser() as running:
        tab = await running.tab(page(site, node.gateway.port))
        await comes_to(tab, _STATUS, "connected")
        await tab.go(f"{site}/elsewhere.html")
        await tab.back()
        await comes_to(tab, _STATUS, "connected")
        await comes_to(tab, "shown.connected", value=True)
        if isinstance(running, Chromium):
            assert await tab.read("shown.persisted")
        assert await bob.all() == ["joined ann"]


# Firefox may end the page before it has sent the message, on a busy machine; then the disconnect grace runs.
@pytest.mark.parametrize("browser", [chromium], indirect=True, ids=["Chromium"])
async def test_a_page_that_is_closed_leaves_after_the_short_grace(
    site: str, browser: Any, bundled_server: Server
):
    settings = {"grace": 3600, "close_grace": 1}
    async with room_with_observer(bundled_server, **settings) as (node, bob), browser() as running:
        await running.tab(f"{site}/elsewhere.html")  # so that the browser goes on
        tab = await running.tab(page(site, node.gateway.port))
        await comes_to(tab, _STATUS, "connected")
        await tab.close()
        await bob.sees("joined ann", "left ann disconnected")


async def test_a_page_that_is_reloaded_was_never_gone(site: str, browser: Any, bundled_server: Server):
    settings = {"grace": 3600, "close_grace": 60}
    async with room_with_observer(bundled_server, **settings) as (node, bob), browser() as running:
        tab = await running.tab(page(site, node.gateway.port))
        await comes_to(tab, _STATUS, "connected")
        await tab.read("window.former = true; location.reload()")
        await comes_to(tab, "window.former !== true && window.room?.status", "connected")
        assert await tab.read("room.resumed")
        assert await bob.all() == ["joined ann"]


@asynccontextmanager
async def watching(
    site: str, server: Server, browser: Callable[[], AbstractAsyncContextManager[Browser]]
) -> AsyncIterator[tuple[Tab, Node, RawClient, Proxy, Browser]]:
    """A page that watches a room, a count and two users, of whom Bob is in the room."""
    async with (
        served(server) as node,
        RawClient.connect(node) as bob,
        Proxy.to(node.gateway.port) as proxy,
        browser() as running,
    ):
        await bob.join("lobby", "bob")
        tab = await running.tab(page(site, proxy.port, "watching.html"))
        await comes_to(tab, "window.state?.()", "true,bob,0,bob online,cy offline")
        yield tab, node, bob, proxy, running


@asynccontextmanager
async def bob_leaves_and_cy_joins(node: Node, bob: RawClient) -> AsyncIterator[None]:
    await bob.ask("leave_room", "room:left", roomId="lobby")
    async with RawClient.connect(node) as cy:
        for room in ("lobby", "hall"):
            await cy.join(room, "cy")
        yield


_LATER = "true,cy,1,bob offline,cy online"
_DIFFERENCES = ["bob offline", "cy online", "join cy", "leave bob"]


async def test_a_page_watches_nothing_while_it_is_left_and_is_shown_again_with_the_differences(
    site: str, browser: Any, bundled_server: Server
):
    async with watching(site, bundled_server, browser) as (tab, node, bob, _, running):
        assert isinstance(node.handler.people, PeopleWatches)
        watches = node.handler.people
        await tab.go(f"{site}/elsewhere.html")
        await until(lambda: len(watches) == 0)
        async with bob_leaves_and_cy_joins(node, bob):
            await tab.back()
            await comes_to(tab, "window.state?.()", _LATER)
            if isinstance(running, Chromium):  # Firefox loads a page with a WebSocket again
                assert await tab.read("shown.persisted"), "the page came from the back/forward cache"
                assert sorted(str(await tab.read("String(seen)")).split(",")[2:]) == _DIFFERENCES
            await tab.read("window.former = true; location.reload()")
            await comes_to(tab, "window.former !== true && window.state?.()", _LATER)


@pytest.mark.parametrize("browser", [chromium], indirect=True, ids=["Chromium"])
async def test_a_page_that_was_offline_has_the_differences_and_no_more(
    site: str, browser: Any, bundled_server: Server
):
    async with watching(site, bundled_server, browser) as (tab, node, bob, proxy, _):
        assert isinstance(tab, ChromiumTab)
        await tab.set_offline(offline=True)
        proxy.cut()
        await comes_to(tab, "client.status", "reconnecting")
        async with bob_leaves_and_cy_joins(node, bob):
            assert await tab.read("state()") == "false,bob,0,bob online,cy offline"
            await tab.set_offline(offline=False)
            await comes_to(tab, "state()", _LATER)
            assert sorted(str(await tab.read("String(seen)")).split(",")[2:]) == _DIFFERENCES


@pytest.mark.parametrize(
    ("name", "path", "reason"),
    [
        ("forbidden.html", "/ws", "Content-Security-Policy"),
        ("room.html", "/elsewhere", "HTTP 404"),
        ("room.html", "/ws", "origin not allowed"),
    ],
    ids=["Content-Security-Policy", "path", "origin"],
)
async def test_a_page_learns_why_it_cannot_connect(
    site: str, browser: Any, bundled_server: Server, name: str, path: str, reason: str
):
    origins = {"origins": "https://app.example"} if "origin" in reason else {}
    async with served(bundled_server, **origins) as node, browser() as running:
        tab = await running.tab(page(site, node.gateway.port, name, path))
        await comes_to(tab, f"(window.client?.error?.message ?? '').includes({reason!r})", value=True)
        assert await tab.read("['connecting', 'closed'].includes(client.status)")
