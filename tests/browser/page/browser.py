"""Visitors of the page in real browsers, each with a profile of its own, on a node of the test's own."""

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
"""Milliseconds after which an awaited condition fails the test."""

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


class Visitor:
    """A visitor of the page: actions and expectations in the terms of the page."""

    def __init__(self, page: Page, site: "Site") -> None:
        self.page = page
        self.site = site
        self.errors: list[str] = []
        self.foreign_urls: list[str] = []
        self.received: list[dict[str, Any]] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._check_url(request.url))
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
        """A member's row in the list of members."""
        return self.page.locator("#members .member").filter(has=self.page.get_by_text(name, exact=True))

    async def sees(self, name: str, state: State, detail: str = "") -> None:
        row = self.row(name)
        await expect(row).to_have_attribute("data-state", state)
        await expect(row).to_contain_text(detail)

    async def counts(self, number: int) -> None:
        await expect(self.page.locator("#count")).to_have_text(str(number))

    async def reads(self, sentence: str) -> None:
        """Wait until the newest line of the log has this text."""
        await expect(self.page.locator("#log li").first.locator(".sentence")).to_have_text(sentence)

    async def status_is(self, text: str | re.Pattern[str]) -> None:
        await expect(self.page.locator("#status-text")).to_contain_text(text)

    async def lines(self) -> list[str]:
        """All lines of the log, oldest first."""
        return (await self.page.locator("#log .sentence").all_inner_texts())[::-1]

    def diffs(self) -> list[dict[str, Any]]:
        """All diffs that this page has received."""
        return [message for message in self.received if message["type"] == "room:diff"]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def _check_url(self, url: str) -> None:
        if urlsplit(url).netloc != self.site.address:
            self.foreign_urls.append(url)

    def _on_socket(self, socket: WebSocket) -> None:
        self._check_url(socket.url)
        socket.on("framereceived", lambda payload: self.received.append(json.loads(payload)))


class Site:
    """A node's page, and its visitors."""

    def __init__(self, browser: Browser, node: Node) -> None:
        self._browser = browser
        self.node = node
        self.visitors: list[Visitor] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.node.gateway.port}"

    async def visit(self, name: str = "", *, room: str = "lobby", user: str = "", **context: Any) -> Visitor:
        """Open the page in a new browser profile. Without a name the page chooses one."""
        # A click waits for the end of animations.
        options: Any = {"viewport": {"width": 1180, "height": 900}, "reduced_motion": "reduce"} | context
        return await self.open_page(
            await (await self._browser.new_context(**options)).new_page(), name, room, user
        )

    async def open_page(self, page: Page, name: str = "", room: str = "", user: str = "") -> Visitor:
        visitor = Visitor(page, self)
        self.visitors.append(visitor)
        query = {"room": room, "name": name, "user": user or name.lower()} if name else {}
        await page.goto(f"http://{self.address}/?{urlencode(query)}")
        return visitor


def program() -> str:
    """The Chromium on PATH; skips the test without one."""
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        pytest.skip(f"no Chromium on PATH: {', '.join(_PROGRAMS)}")
    return found


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """The Chromium on PATH; skips the test without one."""
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
    """A node and its page. At the end no page may have logged errors or contacted other servers.

    may_fail: the browser may log failed connections. options: settings.
    """
    async with served(server, **options) as node:
        site = Site(browser, node)
        try:
            yield site
            for visitor in site.visitors:
                assert not visitor.foreign_urls, visitor.foreign_urls
                assert may_fail or not visitor.errors, visitor.errors
        finally:
            for context in browser.contexts:
                await context.close()
