"""Users of the example app in a browser, and a member of the room that records what others see."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import urlencode

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from reactor.server.node import Node
from reactor.settings.rooms import read_rules
from tests.browser.page.browser import PATIENCE
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.servers import Server

IDLE_MESSAGE = "You were away too long."
PHONE: Any = {"viewport": {"width": 390, "height": 700}, "reduced_motion": "reduce"}


class AppUser:
    """A user of the app."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    async def enter(self, room: str) -> Self:
        await self.page.get_by_role("button", name=room).click()
        return await self.is_in()

    async def is_in(self, status: str = "connected") -> Self:
        await expect(self.page.locator("#status")).to_have_text(status)
        return self

    async def sees(self, *people: str) -> None:
        """Wait until exactly these members are shown, in this order, each as "name" or "name remark"."""
        await expect(self.page.locator("#people li")).to_have_text(list(people))
        await expect(self.page.locator("#count")).to_have_text(str(len(people)))

    async def reads_and_closes(self, message: str) -> None:
        alert = self.page.get_by_role("dialog", name="You left the room")
        await expect(alert.locator("p")).to_have_text(message)
        await alert.get_by_role("button", name="OK").click()

    async def is_at_the_list(self) -> None:
        await expect(self.page.get_by_role("heading", name="Rooms")).to_be_visible()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)


class Watcher(RawClient):
    """A member "bob" that records the events of others in short form: "joined ann", "left ann left"."""

    _marks = 0

    async def watch(self, room: str) -> Self:
        await self.join(room, "bob")
        self.start_heartbeats()
        self.room = room
        return self

    @property
    def seen(self) -> list[str]:
        lines: list[str] = []
        for diff in self.of("room:diff"):
            lines += [f"left {one['userId']} {one['reason']}" for one in diff["left"]]
            lines += [f"joined {one['userId']}" for one in diff["joined"]]
            for one in diff["updated"]:
                lines.append(f"updated {one['userId']}{' away' if one['away'] else ''} {one['connections']}")
        return [line for line in lines if " bob" not in line]

    async def sees(self, *lines: str) -> None:
        await self.until(lambda: len(self.seen) >= len(lines))
        assert self.seen == list(lines)

    async def all(self) -> list[str]:
        """All events until now: those sent before have arrived when this client's own update comes back."""
        self._marks += 1
        mark = self._marks
        await self.send("room:update", roomId=self.room, data=mark)
        await self.until(lambda: any(
            one["userId"] == "bob" and one.get("data") == mark
            for diff in self.of("room:diff") for one in diff["updated"]
        ))  # fmt: skip
        return self.seen


class Place:
    """A node, the proxy in front of it, and the users of the app."""

    def __init__(self, browser: Browser | None, app: str, node: Node, proxy: Proxy) -> None:
        self._browser = browser
        self._app = app
        self.node = node
        self.proxy = proxy
        self.users: list[AppUser] = []

    def address(self, user: str, room: str = "") -> str:
        server = f"ws://127.0.0.1:{self.proxy.port}/ws"
        return f"{self._app}/?{urlencode({'server': server, 'user': user})}#{room}"

    async def open_app(self, user: str, context: BrowserContext | None = None, **options: Any) -> AppUser:
        if context is None:
            assert self._browser is not None
            context = await self._browser.new_context(**(PHONE | options))
        app_user = AppUser(await context.new_page())
        self.users.append(app_user)
        await app_user.page.goto(self.address(user))
        return app_user


@asynccontextmanager
async def place(
    browser: Browser | None, app: str, server: Server, *, may_fail: bool = False, **options: Any
) -> AsyncIterator[Place]:
    """Serve the app's rooms. At the end no page may have logged errors, unless `may_fail` is set."""
    rules = read_rules({"brief-*": {"ttl": "1s", "message": IDLE_MESSAGE}}, "test")
    async with served(server, rooms=rules, **options) as node, Proxy.to(node.gateway.port) as proxy:
        here = Place(browser, app, node, proxy)
        try:
            yield here
            for user in here.users:
                assert may_fail or not user.errors, user.errors
        finally:
            for context in browser.contexts if browser else ():
                await context.close()


@asynccontextmanager
async def watching(here: Place, room: str) -> AsyncIterator[Watcher]:
    async with Watcher.connect(here.node) as watcher:
        yield await watcher.watch(room)
