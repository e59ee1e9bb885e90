"""People in front of real browsers, each in a profile of their own, on a node of the test's own."""

import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, Self
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    WebSocket,
    async_playwright,
    expect,
)

from reactor.server.node import Node
from tests.support.nodes import served
from tests.support.servers import Server

PATIENCE = 15_000.0
"""Milliseconds after which something that a test awaits is taken for lost."""

PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 2,
    "has_touch": True,
}

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

State = Literal["here", "away", "left"]

expect.set_options(timeout=PATIENCE)


class Person:
    """Somebody in front of a page: what they can do and see, in their words."""

    def __init__(self, page: Page, site: "Site") -> None:
        self.page = page
        self.site = site
        self.errors: list[str] = []
        self.strangers: list[str] = []
        self.heard: list[dict[str, Any]] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._on_url(request.url))
        page.on("websocket", self._on_socket)

    @property
    def context(self) -> BrowserContext:
        return self.page.context

    async def join(self) -> Self:
        await self.page.get_by_role("button", name="Join the room").click()
        await expect(self.page.locator("#room")).to_be_visible()
        return self

    async def press(self, name: str) -> None:
        await self.page.get_by_role("button", name=name, exact=True).click()

    def row(self, name: str) -> Locator:
        """Somebody's row in the list of who is here."""
        return self.page.locator("#members .member").filter(has=self.page.get_by_text(name, exact=True))

    async def sees(self, name: str, state: State, detail: str = "") -> None:
        row = self.row(name)
        await expect(row).to_have_attribute("data-state", state)
        await expect(row).to_contain_text(detail)

    async def counts(self, number: int) -> None:
        await expect(self.page.locator("#count")).to_have_text(str(number))

    async def reads(self, sentence: str) -> None:
        """The newest line of the log comes to say this."""
        await expect(self.page.locator("#log li").first.locator(".sentence")).to_have_text(sentence)

    async def status_is(self, text: str | re.Pattern[str]) -> None:
        await expect(self.page.locator("#status-text")).to_contain_text(text)

    async def lines(self) -> list[str]:
        """All that the log has said, oldest first."""
        return (await self.page.locator("#log .sentence").all_inner_texts())[::-1]

    def diffs(self) -> list[dict[str, Any]]:
        """All that this page's socket was told of changes."""
        return [message for message in self.heard if message["type"] == "room:diff"]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def _on_url(self, url: str) -> None:
        if urlsplit(url).netloc != self.site.address:
            self.strangers.append(url)

    def _on_socket(self, socket: WebSocket) -> None:
        self._on_url(socket.url)
        socket.on("framereceived", lambda payload: self.heard.append(json.loads(payload)))


class Site:
    """A node's page, and the people who look at it."""

    def __init__(self, browser: Browser, node: Node) -> None:
        self._browser = browser
        self.node = node
        self.people: list[Person] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.node.gateway.port}"

    async def person(self, name: str = "", *, room: str = "lobby", user: str = "", **context: Any) -> Person:
        """A new browser profile at the door of a room. Without a name, it is the page's own choice."""
        # A click waits until nothing moves any more.
        options: Any = {"viewport": {"width": 1180, "height": 900}, "reduced_motion": "reduce"} | context
        return await self.look(
            await (await self._browser.new_context(**options)).new_page(), name, room, user
        )

    async def look(self, page: Page, name: str = "", room: str = "", user: str = "") -> Person:
        person = Person(page, self)
        self.people.append(person)
        query = {"room": room, "name": name, "user": user or name.lower()} if name else {}
        await page.goto(f"http://{self.address}/?{urlencode(query)}")
        return person


def program() -> str:
    """The Chromium on PATH; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        pytest.skip(f"no Chromium on PATH: {', '.join(_PROGRAMS)}")
    return found


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """The Chromium on PATH; skips the test where there is none."""
    executable = program()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def site_on(
    browser: Browser, server: Server, *, may_fail: bool = False, **options: Any
) -> AsyncIterator[Site]:
    """A node and its page. At the end, nobody's page may have complained or spoken to anybody else.

    may_fail: the browser may complain of connections that cannot be made; options are settings.
    """
    async with served(server, **options) as node:
        site = Site(browser, node)
        try:
            yield site
            for person in site.people:
                assert not person.strangers, person.strangers
                assert may_fail or not person.errors, person.errors
        finally:
            for context in browser.contexts:
                await context.close()
