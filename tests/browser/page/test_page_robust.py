"""The page under bad conditions: hostile names, no network, no Redis, a restarted server, small screens."""

import re
from contextlib import AsyncExitStack
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.page.browser import PHONE, site_on
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server, free_port

pytestmark = pytest.mark.asyncio(loop_scope="session")  # as the browser, which starts once

MARKUP = "<img src=x onerror=document.title='owned'>"
LONG = "Wolfeschlegelsteinhausenbergerdorff" * 4


async def test_names_and_data_of_others_are_shown_as_text(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site, RawClient.connect(site.node) as other:
        room = "<b>room</b>"
        ada = await (await site.visit(MARKUP, room=room, user="<script>alert(1)</script>")).join()
        await other.join(room, "x", username="<svg onload=alert(1)>", data={"note": MARKUP})
        await ada.sees("<svg onload=alert(1)>", "here", MARKUP)
        await ada.sees(MARKUP, "here", "you")
        await ada.reads("<svg onload=alert(1)> joined")
        await expect(ada.page.locator("#room-title")).to_have_text(room)
        await ada.page.locator("#wire summary").click()
        await expect(ada.page.locator("#wire-list")).to_contain_text(MARKUP)
        assert await ada.page.locator("img, main script, #members svg, #log svg, h1 b").count() == 0
        assert await ada.page.title() == f"(2) {room} · reactor"


async def test_offline_and_online_again(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, may_fail=True, grace=30) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await ada.sees("Bob", "here")
        former = len(ada.diffs())
        await bob.context.set_offline(True)
        await bob.press("Drop the socket")
        await expect(bob.page.locator("#banner")).to_contain_text("This device reports that it is offline.")
        for _ in range(6):
            await bob.press("Reconnect")
            await expect(bob.page.locator("#banner")).to_be_visible()
        # After so many failures the next attempt is over 7 s away; the online event does not wait for it.
        await bob.context.set_offline(False)
        await expect(bob.page.locator("#status-text")).to_have_text("Connected", timeout=6000)
        await bob.reads("You reconnected within the grace; the other members saw no change")
        await bob.status_is("Connected")
        # The server may see the old socket close after the new one opened: two connections, for a moment.
        assert not [diff for diff in ada.diffs()[former:] if diff["joined"] or diff["left"]]


async def test_a_network_that_drops_everything_is_detected(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, may_fail=True, grace=30) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await ada.sees("Bob", "here")
        former = len(ada.diffs())
        await bob.page.clock.install()
        await bob.context.set_offline(True)
        await bob.status_is(re.compile("Device offline|Reconnecting in"))  # as long as a busy machine takes
        await bob.page.clock.run_for(10_500)  # without an acknowledgement
        await bob.status_is("Reconnecting in")
        await bob.context.set_offline(False)
        await bob.reads("You reconnected within the grace; the other members saw no change")
        await bob.status_is("Connected")
        assert [diff for diff in ada.diffs()[former:] if diff["joined"] or diff["left"]] == []


async def test_the_page_reconnects_to_a_restarted_server(browser: Browser, bundled_server: Server):
    port = free_port()
    async with site_on(browser, bundled_server, may_fail=True) as site:
        async with served(bundled_server, port=port, grace=30) as node:
            site.node = node
            ada = await (await site.visit("Ada")).join()
        await ada.status_is("Reconnecting in")
        async with served(bundled_server, port=port, grace=30):
            await ada.reads("You reconnected within the grace; the other members saw no change")
            await ada.status_is("Connected")


async def test_redis_away_and_back(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, ttl=60, heartbeat_interval=0.2) as site:
        ada = await (await site.visit("Ada")).join()
        bundled_server.kill()
        await ada.status_is("Degraded: Redis does not answer")
        bundled_server.start()
        await ada.status_is("Connected")
        await ada.sees("Ada", "here", "you")
        await expect(ada.page.get_by_role("dialog")).to_be_hidden()


async def test_a_refused_join_shows_the_reason(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        ada = await site.visit("Ada")
        await ada.page.get_by_label("User id").fill("é" * 200)
        await ada.page.get_by_role("button", name="Join the room").click()
        await expect(ada.page.get_by_role("alert")).to_contain_text("longer than 256 bytes")
        await ada.page.get_by_label("User id").fill("ada")
        await ada.join()


@pytest.mark.parametrize("options", [PHONE, PHONE | {"color_scheme": "dark"}], ids=["light", "dark"])
async def test_nothing_is_wider_than_a_phone(
    browser: Browser, bundled_server: Server, options: dict[str, Any]
):
    async with site_on(browser, bundled_server, grace=30) as site, RawClient.connect(site.node) as other:
        ada = await site.visit(LONG, room=LONG, user=LONG, **options)
        await fits(ada.page)
        await ada.join()
        await other.join(LONG, "x", username=f"{LONG[:100]} {LONG[:100]}", data={"a": LONG})
        await ada.counts(2)
        await fits(ada.page)
        await ada.page.locator("#wire summary").tap()
        await fits(ada.page)
        await ada.press("Drop the socket")
        await expect(ada.page.locator("#banner")).to_be_visible()
        await fits(ada.page)
        await ada.press("Reconnect")
        await ada.status_is("Connected")


async def test_on_a_narrow_screen_one_s_own_card_stands_before_a_list_that_scrolls(
    browser: Browser, bundled_server: Server
):
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(site_on(browser, bundled_server))
        for number in range(20):
            other = await stack.enter_async_context(RawClient.connect(site.node))
            await other.join("lobby", f"user-{number}")
        ada = await (await site.visit("Ada", viewport={"width": 320, "height": 640})).join()
        await ada.counts(21)
        mine, others = [await ada.page.locator(one).bounding_box() for one in (".you", ".members")]
        assert mine
        assert others
        assert mine["y"] < others["y"]
        assert others["height"] < 640
        assert await ada.page.locator("#members").evaluate("list => list.scrollHeight > list.clientHeight")


async def test_forced_colours_keep_the_dots_and_bars(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        colours = []
        for mode in ("none", "active"):
            ada = await (await site.visit("Ada", forced_colors=mode, color_scheme="light")).join()
            await expect(ada.page.locator(".beat").first).to_be_visible()
            colours.append(
                [
                    await ada.page.locator(one).first.evaluate("one => getComputedStyle(one).backgroundColor")
                    for one in (".status .dot", "#members .dot", ".beat")
                ]
            )
        assert colours[0] == colours[1]


async def fits(page: Page) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    # Nothing overflows its card, either.
    out = await page.evaluate(
        """() => [...document.querySelectorAll('main *, .banner *')]
            .filter(one => one.checkVisibility() && !one.closest('svg, .unseen'))
            .filter(one => one.getBoundingClientRect().right > innerWidth - 16)
            .filter(one => getComputedStyle(one.parentElement).overflowX !== 'hidden')
            .map(one => one.id || one.className || one.tagName)"""
    )
    assert out == []


async def test_by_keyboard_alone(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        ada = await site.visit()
        keys = ada.page.keyboard
        await ada.page.get_by_label("Your name").focus()
        await keys.press("ControlOrMeta+a")
        await keys.type("Ada")
        await keys.press("Enter")
        await expect(ada.page.get_by_role("heading", name="lobby")).to_be_focused()
        await ada.sees("Ada", "here", "you")
        reached = []
        for _ in range(13):
            await keys.press("Tab")
            reached.append(await ada.page.evaluate("document.activeElement.id"))
        assert reached == [
            *["another", "members", "beat", "data", "set", "message", "send"],
            *["away", "silent", "drop", "leave", "log-scroll", ""],
        ]
        assert await ada.page.evaluate("document.activeElement.tagName") == "SUMMARY"
        await keys.press("Enter")
        await expect(ada.page.locator("#wire-list li").first).to_be_visible()


async def test_accessible_names_and_descriptions(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        ada = await site.visit("Ada")
        await expect(ada.page.get_by_label("User id")).to_have_accessible_description(
            "The same id in two tabs is one member with two connections."
        )
        await ada.join()
        await expect(ada.page.get_by_role("log", name="Events")).to_be_visible()
        await expect(ada.page.get_by_role("status")).to_have_text("Connected")
        ring = ada.page.get_by_role("progressbar", name="Time until expiry without a heartbeat")
        await expect(ring).to_have_attribute("aria-valuetext", "6:00:00")
        silent = ada.page.get_by_role("button", name="Go silent", exact=True)
        await silent.click()
        await expect(
            ada.page.get_by_role("button", name="Send heartbeats again")
        ).to_have_accessible_description("Expires in 6 h; in a room named demo-… after 30 s.")
        # The countdown to the next attempt is shown, and not read out.
        await ada.press("Drop the socket")
        await expect(ada.page.get_by_role("status")).to_have_text("Reconnecting")


async def test_messages_can_be_read_and_copied(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        ada = await site.visit("Ada", permissions=["clipboard-read", "clipboard-write"])
        await ada.join()
        await ada.page.locator("#wire summary").click()
        rows = ada.page.locator("#wire-list li")
        await expect(rows.last).to_contain_text('"type":"join_room"')
        await ada.press("Send now")
        await expect(rows.first).to_contain_text('"type":"room:heartbeat:ack"')
        for _ in range(105):
            await ada.page.evaluate("document.getElementById('beat').click()")
            await expect(ada.page.locator("#beat")).to_be_enabled()
        await expect(ada.page.locator("#wire-count")).not_to_have_text("0")
        assert await rows.count() <= 200
        await ada.press("Copy all")
        await expect(ada.page.locator("#wire-copy")).to_have_text("Copied")
        copied = await ada.page.evaluate("navigator.clipboard.readText()")
        assert '↓ {"type":"room:heartbeat:ack"' in copied
        await ada.press("Clear")
        await expect(rows).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_has_enough_contrast(browser: Browser, bundled_server: Server, scheme: str):
    async with site_on(browser, bundled_server) as site:
        ada = await site.visit("Ada", color_scheme=scheme)
        poor = await ada.page.evaluate(
            """() => {
                const light = (name) => {
                    const probe = document.createElement('i');
                    probe.style.color = `var(${name})`;
                    document.body.append(probe);
                    const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3);
                    const [r, g, b] = parts.map(v => v / 255).map(
                        v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const pairs = [['--on-accent', '--accent'], ['--accent', '--tint']];
                for (const ink of ['--ink', '--soft', '--here-ink', '--away-ink', '--danger'])
                    for (const ground of ['--paper', '--card']) pairs.push([ink, ground]);
                for (const ground of ['--raised', '--tint', '--warn-tint'])
                    pairs.push(['--ink', ground], ['--soft', ground]);
                return pairs.map(([ink, ground]) => {
                    const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
                    return [ink, ground, (high + 0.05) / (low + 0.05)];
                }).filter(([, , ratio]) => ratio < 4.5);
            }"""
        )
        assert poor == []
        ground = await ada.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(246, 245, 242)", "dark": "rgb(18, 20, 19)"}[scheme]
