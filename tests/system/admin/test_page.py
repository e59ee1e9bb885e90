"""The overview page in a real browser: signing in, what it shows, and that it contacts only its server."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, expect

from reactor.protocol.reasons import REASONS
from reactor.server.node import Node
from tests.browser.page.browser import PATIENCE, PHONE
from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.system.admin.serving import KEY, admin_served

pytestmark = pytest.mark.asyncio(loop_scope="session")  # as the browser, which starts once


@asynccontextmanager
async def overview_page(
    browser: Browser, node: Node, *, key: str = KEY, may_fail: bool = False, **context: Any
) -> AsyncIterator[Page]:
    """The overview after signing in with a key. At the end only the node may have been contacted."""
    opened = await browser.new_context(**context)
    page = await opened.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    requested: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            errors.append(message.text)

    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    await page.goto(f"http://127.0.0.1:{node.settings.admin_port}/")
    try:
        if key:
            await page.get_by_label("Key").fill(key)
            await page.get_by_role("button", name="Sign in").click()
        yield page
        assert {urlsplit(url).netloc for url in requested} == {f"127.0.0.1:{node.settings.admin_port}"}
        assert may_fail or not errors, errors
    finally:
        await opened.close()


async def test_it_shows_rooms_members_and_servers(browser: Browser, bundled_server: Server) -> None:
    async with (
        admin_served(bundled_server) as (node, _),
        served(bundled_server) as other,
        RawClient.connect(node) as ann,
        RawClient.connect(other) as bob,
        overview_page(browser, node) as page,
    ):
        await expect(page.locator("#status-text")).to_have_text("Live")
        await expect(page.locator("#no-rooms")).to_be_visible()
        await ann.join("lobby", "ann")
        await ann.join("<b>hall</b> \u202eabc", "ann")
        await bob.join("lobby", "bob")
        await expect(page.locator("#members")).to_have_text("3")
        await expect(page.locator("#rooms")).to_have_text("2")
        await expect(page.locator("#connections")).to_have_text("2")
        first = page.locator("#room-list li").first
        await expect(first).to_contain_text("lobby")
        await expect(first).to_contain_text("2")
        await expect(page.locator("#room-list li .name").nth(1)).to_have_text("<b>hall</b> \u202eabc")
        await expect(page.locator("#nodes tr")).to_have_count(2)
        await expect(page.locator("#nodes").get_by_text("leader")).to_have_count(1)


async def test_it_shows_joins_departures_and_lateness(browser: Browser, bundled_server: Server) -> None:
    async with (
        admin_served(bundled_server, grace=0.1) as (node, _),
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        overview_page(browser, node) as page,
    ):
        await expect(page.locator("#joins")).to_have_text("0")
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        await expect(page.locator("#joins")).not_to_have_text("0")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        ann.vanish()
        reasons = page.locator("#reasons tr")
        await expect(reasons.filter(has_text="left").locator("td").last).to_have_text("1")
        await expect(reasons.filter(has_text="disconnected").locator("td").last).to_have_text("1")
        await expect(page.locator("#departures")).not_to_have_text("0")
        await expect(page.locator("#lateness")).to_contain_text("≤")
        await expect(page.locator('#traffic rect[data-kind="joins"]')).not_to_have_count(0)
        await expect(page.locator('#traffic rect[data-kind="left"]')).to_have_count(1)


async def test_a_reason_of_a_later_version_has_a_row_a_colour_and_a_place_in_the_legend(
    browser: Browser, bundled_server: Server
) -> None:
    async with admin_served(bundled_server) as (node, _), overview_page(browser, node) as page:
        kinds = "all => all.map((one) => one.dataset.kind)"
        legend = page.locator("#legend li")
        await expect(legend).to_have_count(1 + len(REASONS))
        assert await legend.evaluate_all(kinds) == ["joins", *REASONS]
        bundled_server.control.hincrby(f"{node.keys.prefixes[0]}:totals", "moved", 3)
        await expect(legend.last).to_have_text("moved")
        reason = page.locator("#reasons tr").last.locator("td")
        await expect(reason.first).to_have_text("moved")
        await expect(reason.last).to_have_text("3")
        colour = "(one) => getComputedStyle(one, '::before').backgroundColor"
        shown = {await legend.nth(place).evaluate(colour) for place in range(len(REASONS) + 2)}
        assert len(shown) == len(REASONS) + 2, "each has a colour of its own"


async def test_a_wrong_key_shows_nothing(browser: Browser, bundled_server: Server) -> None:
    async with (
        admin_served(bundled_server) as (node, _),
        overview_page(browser, node, key="a-wrong-key-of-more-than-32-bytes!!", may_fail=True) as page,
    ):
        await expect(page.get_by_role("alert")).to_have_text("The key is wrong.")
        await expect(page.locator("#overview")).to_be_hidden()
        assert await page.evaluate("sessionStorage.length + localStorage.length") == 0
        await page.get_by_label("Key").fill(KEY)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("#overview")).to_be_visible()


async def test_the_key_is_kept_in_the_tab_until_signing_out(browser: Browser, bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, _), overview_page(browser, node) as page:
        await expect(page.locator("#overview")).to_be_visible()
        await page.reload()
        await expect(page.locator("#overview")).to_be_visible()
        assert KEY not in await page.content()
        assert await page.evaluate("localStorage.length") == 0
        other = await page.context.new_page()
        await other.goto(page.url)
        await expect(other.locator("#sign-in-screen")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.locator("#sign-in-screen")).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0


async def test_it_shows_lost_redis_and_lost_server_and_recovers(
    browser: Browser, bundled_server: Server
) -> None:
    async with admin_served(bundled_server) as (node, _), overview_page(browser, node, may_fail=True) as page:
        await expect(page.locator("#status-text")).to_have_text("Live")
        bundled_server.kill()
        await expect(page.locator("#status-text")).to_contain_text("Redis does not answer")
        await expect(page.locator("#overview")).to_have_class("stale")
        bundled_server.start()
        await expect(page.locator("#status-text")).to_have_text("Live")
        await page.context.set_offline(True)
        await expect(page.locator("#status-text")).to_have_text("The server does not answer")


async def test_a_killed_server_is_shown_with_when_it_was_last_seen(
    browser: Browser, bundled_server: Server
) -> None:
    async with (
        admin_served(bundled_server, lease=30) as (node, _),
        overview_page(browser, node) as page,
        NodeProcess.start(bundled_server, lease=30) as other,
    ):
        rows = page.locator("#nodes tr")
        await expect(rows).to_have_count(2)
        await expect(rows.filter(has_text="last seen")).to_have_count(0)
        await other.kill()
        await expect(rows.filter(has_text="last seen")).to_have_count(1)
        await expect(rows.filter(has_text="leader").filter(has_text="last seen")).to_have_count(0)


async def test_a_server_that_stops_answering_is_not_live(browser: Browser, bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, _), overview_page(browser, node, may_fail=True) as page:
        await expect(page.locator("#as-of")).to_have_text(re.compile(r"as of \d\d:\d\d:\d\d"))
        await page.route("**/v1/overview", lambda _route: None)
        await expect(page.locator("#status-text")).to_have_text("The server does not answer")
        await expect(page.locator("#as-of")).to_have_text(re.compile(r"as of \d\d:\d\d:\d\d"))


async def test_a_room_is_found_and_its_members_are_listed(browser: Browser, bundled_server: Server) -> None:
    async with (
        admin_served(bundled_server) as (node, _),
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        overview_page(browser, node) as page,
    ):
        await expect(page.locator("#no-rooms")).to_have_text("No room has members.")
        await expect(page.locator("#no-departures")).to_be_visible()
        await expect(page.locator("#no-traffic")).to_be_visible()
        await ann.join("a room/with & signs", "ann", username="<b>Ann</b>")
        await bob.join("lobby", "bob")
        await expect(page.locator("#room-list li")).to_have_count(2)
        await page.get_by_label("Search").fill("SIGNS")
        await expect(page.locator("#room-list li")).to_have_count(1)
        await page.locator("#room-list button").click()
        await expect(page.get_by_role("heading", name="a room/with & signs")).to_be_focused()
        member = page.locator("#room-members tr")
        await expect(member).to_have_count(1)
        await expect(member.locator("td").nth(0)).to_have_text("<b>Ann</b>")
        await expect(member.locator("td").nth(2)).to_have_text("here")
        await ann.ask("leave_room", "room:left", roomId="a room/with & signs")
        await page.get_by_role("button", name="Refresh").click()
        await expect(page.locator("#no-members")).to_be_visible()
        await page.get_by_role("button", name="Close").click()
        await expect(page.locator("#room")).to_be_hidden()
        await page.get_by_label("Search").fill("nowhere")
        await expect(page.locator("#no-rooms")).to_contain_text("No room with members has this")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone_in_light_and_dark(
    browser: Browser, bundled_server: Server, scheme: str
) -> None:
    options: dict[str, Any] = PHONE | {"color_scheme": scheme}
    async with admin_served(bundled_server) as (node, _), RawClient.connect(node) as ann:
        await ann.join("a-room-with-a-very-long-name-" * 6, "ann")
        async with overview_page(browser, node, **options) as page:
            await expect(page.locator("#members")).to_have_text("1")
            overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0
            background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(18, 20, 19)") is (scheme == "dark")


async def test_forced_colours_keep_the_dot_the_legend_and_the_bars(
    browser: Browser, bundled_server: Server
) -> None:
    shown: list[list[str]] = []
    async with admin_served(bundled_server) as (node, _), RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        for mode in ("none", "active"):
            async with overview_page(browser, node, forced_colors=mode, color_scheme="light") as page:
                await expect(page.locator("#members")).to_have_text("1")
                shown.append([await _background(page, *one) for one in _COLOURED])
                edge = await page.locator(".bars .fill").evaluate(
                    "one => getComputedStyle(one).borderBottomWidth"
                )
                assert edge == ("3px" if mode == "active" else "0px")
    assert shown[0] == shown[1]


_COLOURED = ((".dot", None), (".legend li", "::before"), ("#reasons td", "::before"))


async def _background(page: Page, selector: str, part: str | None) -> str:
    script = "(one, part) => getComputedStyle(one, part).backgroundColor"
    return str(await page.locator(selector).first.evaluate(script, part))
