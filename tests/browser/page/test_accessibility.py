"""Both pages under axe-core, in light and dark: it finds nothing in any of their states."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.page.browser import site_on
from tests.js.tools import installed
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.system.admin.serving import KEY, admin_served

pytestmark = pytest.mark.asyncio(loop_scope="session")  # as the browser, which starts once


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    return Path(installed() / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


async def findings(page: Page, axe: str) -> list[str]:
    """What axe-core finds on the page, as "rule: element"."""
    await page.evaluate(axe)
    result: dict[str, Any] = await page.evaluate("axe.run()")
    return [
        f"{one['id']}: {node['html']} {node['failureSummary']}"
        for one in result["violations"]
        for node in one["nodes"]
    ]


async def test_the_page(browser: Browser, bundled_server: Server, scheme: str, axe: str):
    async with site_on(browser, bundled_server, grace=30) as site, RawClient.connect(site.node) as bob:
        ada = await site.visit("Ada", color_scheme=scheme)
        assert await findings(ada.page, axe) == []
        await ada.page.get_by_label("User id").fill("é" * 200)
        await ada.page.get_by_role("button", name="Join the room").click()
        await expect(ada.page.get_by_role("alert")).to_be_visible()
        assert await findings(ada.page, axe) == []
        await ada.page.get_by_label("User id").fill("ada")
        await ada.join()
        await bob.join("lobby", "bob", username="Bob", data={"mood": "fine"})
        await bob.ask("room:away", "room:away:ok", roomId="lobby")
        await ada.sees("Bob", "away")
        await ada.page.locator("#wire summary").click()
        await ada.page.get_by_label("Your data").fill("é" * 3000)
        await ada.press("Set")
        await expect(ada.page.get_by_role("alert")).to_be_visible()
        assert await findings(ada.page, axe) == []
        await ada.press("Go silent")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        await ada.sees("Bob", "left")
        assert await findings(ada.page, axe) == []
        await ada.press("Drop the socket")
        await expect(ada.page.locator("#banner")).to_be_visible()
        assert await findings(ada.page, axe) == []


async def test_the_overview(browser: Browser, bundled_server: Server, scheme: str, axe: str):
    async with (
        admin_served(bundled_server) as (node, _),
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        context = await browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
        page = await context.new_page()
        await page.goto(f"http://127.0.0.1:{node.settings.admin_port}/")
        assert await findings(page, axe) == []
        await page.get_by_label("Key").fill(KEY[::-1])
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        assert await findings(page, axe) == []
        await page.get_by_label("Key").fill(KEY)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("#status-text")).to_contain_text("Live")
        assert await findings(page, axe) == []
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        await bob.ask("room:away", "room:away:ok", roomId="lobby")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        await expect(page.locator("#traffic rect").first).to_be_attached()
        await expect(page.locator("#room-list")).to_contain_text("lobby")
        assert await findings(page, axe) == []
        await page.locator("#room-list button").click()
        await expect(page.locator("#room-members tr")).to_have_count(1)
        assert await findings(page, axe) == []
        await page.route("**/v1/overview", lambda route: route.abort())
        await expect(page.locator("#status-text")).to_have_text("The server does not answer")
        assert await findings(page, axe) == []
        await context.close()
