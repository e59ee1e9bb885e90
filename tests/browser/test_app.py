"""An app made with React and Vite, in a real browser on a real server; what others see of each failure."""

import pytest
from playwright.async_api import Browser, expect

from reactor.presence.api import Presence
from tests.browser.app_users import IDLE_MESSAGE, place, watching
from tests.support.servers import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")  # as the browser, which starts once


async def test_two_users_see_each_other(browser: Browser, app: str, bundled_server: Server):
    async with place(browser, app, bundled_server) as here, watching(here, "lobby") as bob:
        ann = await (await here.open_app("ann")).enter("lobby")
        await ann.sees("bob", "annyou")
        assert await bob.all() == ["joined ann"]
        cleo = await (await here.open_app("cleo")).enter("lobby")
        await ann.sees("bob", "annyou", "cleo")
        await cleo.sees("bob", "ann", "cleoyou")
        await ann.page.get_by_label("Message").fill("Hello")
        await cleo.sees("bob", "anntyping", "cleoyou")
        assert await bob.all() == ["joined ann", "joined cleo", "updated ann 1"]


async def test_going_back_leaves_at_once_and_the_next_room_is_joined(
    browser: Browser, app: str, bundled_server: Server
):
    async with place(browser, app, bundled_server) as here, watching(here, "lobby") as bob:
        ann = await (await here.open_app("ann")).enter("lobby")
        await ann.page.get_by_role("button", name="Back").click()
        await bob.sees("joined ann", "left ann left")
        await ann.enter("kitchen")
        await ann.sees("annyou")
        assert await bob.all() == ["joined ann", "left ann left"]


async def test_a_reloaded_page_rejoins_within_the_grace_without_a_diff(
    browser: Browser, app: str, bundled_server: Server
):
    async with place(browser, app, bundled_server) as here, watching(here, "lobby") as bob:
        ann = await (await here.open_app("ann")).enter("lobby")
        for _ in range(3):
            await ann.page.reload()
            await ann.is_in()
            await ann.sees("bob", "annyou")
        assert await bob.all() == ["joined ann"]


async def test_a_closed_tab_leaves_after_the_grace(browser: Browser, app: str, bundled_server: Server):
    async with place(browser, app, bundled_server, grace=0.5) as here, watching(here, "lobby") as bob:
        ann = await (await here.open_app("ann")).enter("lobby")
        await ann.page.close()
        await bob.sees("joined ann", "left ann disconnected")


async def test_a_connection_lost_for_less_than_the_grace_is_not_shown_to_others(
    browser: Browser, app: str, bundled_server: Server
):
    async with (
        place(browser, app, bundled_server, grace=30, may_fail=True) as here,
        watching(here, "lobby") as bob,
    ):
        ann = await (await here.open_app("ann")).enter("lobby")
        await ann.page.context.set_offline(True)
        here.proxy.cut()
        await ann.is_in("reconnecting")
        await ann.sees("bob", "annyou")
        await bob.send("room:update", roomId="lobby", username="Bobby")
        await ann.page.context.set_offline(False)
        await ann.is_in()
        await ann.sees("Bobby", "annyou")
        assert await bob.all() == ["joined ann"]


async def test_many_tabs_of_one_user_are_one_member(browser: Browser, app: str, bundled_server: Server):
    async with place(browser, app, bundled_server, grace=0.5) as here, watching(here, "lobby") as bob:
        first = await (await here.open_app("ann")).enter("lobby")
        tabs = [await (await here.open_app("ann", first.page.context)).enter("lobby") for _ in range(3)]
        for tab in (first, *tabs):
            await tab.sees("bob", "annyou · 4 tabs")
        for tab in tabs:
            await tab.page.close()
        await first.sees("bob", "annyou")
        assert {line.split()[0] for line in (await bob.all())[1:]} == {"updated"}
        assert bob.seen[0] == "joined ann"


async def test_a_kicked_user_reads_the_message_and_returns_to_the_list(
    browser: Browser, app: str, bundled_server: Server
):
    async with place(browser, app, bundled_server) as here, watching(here, "lobby") as bob:
        ann = await (await here.open_app("ann", color_scheme="dark")).enter("lobby")
        async with Presence.open(bundled_server.socket_url) as presence:
            assert await presence.kick("lobby", "ann", "See you tomorrow.")
        await ann.reads_and_closes("See you tomorrow.")
        await ann.is_at_the_list()
        await bob.sees("joined ann", "left ann kicked")
        await ann.enter("lobby")
        await ann.sees("bob", "annyou")


async def test_a_silent_user_reads_the_message_and_returns_to_the_list(
    browser: Browser, app: str, bundled_server: Server
):
    async with place(browser, app, bundled_server) as here, watching(here, "brief-talk") as bob:
        ann = await (await here.open_app("ann")).enter("brief-talk")
        await ann.page.evaluate("WebSocket.prototype.send = () => {}")
        await ann.reads_and_closes(IDLE_MESSAGE)
        await ann.is_at_the_list()
        await bob.sees("joined ann", "left ann inactivity_timeout")


async def test_the_app_waits_for_a_server_that_does_not_run_yet(
    browser: Browser, app: str, bundled_server: Server
):
    async with place(browser, app, bundled_server, may_fail=True) as here:
        here.proxy.refuse = True
        ann = await here.open_app("ann")
        await ann.page.get_by_role("button", name="lobby").click()
        await ann.is_in("connecting")
        await expect(ann.page.locator("#count")).to_have_text("0")
        here.proxy.refuse = False
        await ann.is_in()
        await ann.sees("annyou")
