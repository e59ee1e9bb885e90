"""The app in the background: hidden and frozen, as the system does it."""

import asyncio
import time
from pathlib import Path

import pytest

from reactor.presence.api import Presence
from tests.browser.app_users import IDLE_MESSAGE, Place, place, watching
from tests.browser.cdp import Chromium, Tab, chromium
from tests.support.servers import Server

_STATUS = "document.querySelector('#status')?.textContent"


async def _in_the_room(browser: Chromium, here: Place, room: str) -> Tab:
    """A tab in a room, opened from the list of rooms, so that it can go back there."""
    tab = await browser.tab(here.address("ann"))
    await tab.comes_to_read("document.querySelector('.rooms') !== null", value=True)
    await tab.read(f"location.hash = '{room}'")
    await tab.comes_to_read(_STATUS, "connected")
    return tab


async def _hidden_in_the_room(browser: Chromium, here: Place, room: str) -> Tab:
    """The same, behind another tab."""
    tab = await _in_the_room(browser, here, room)
    await browser.tab()
    await tab.comes_to_read("document.visibilityState", "hidden")
    return tab


async def test_a_hidden_page_is_away_and_a_visible_one_is_back(
    app: str, bundled_server: Server, tmp_path: Path
):
    async with (
        place(None, app, bundled_server) as here,
        watching(here, "lobby") as bob,
        chromium(tmp_path) as browser,
    ):
        ann = await _hidden_in_the_room(browser, here, "lobby")
        await bob.sees("joined ann", "updated ann away 1")
        await ann.comes_to_read("document.querySelector('[data-user=ann]').dataset.state", "away")
        await ann.front()
        await bob.sees("joined ann", "updated ann away 1", "updated ann 1")


@pytest.mark.slow
async def test_a_hidden_page_sends_heartbeats_and_outlives_the_ttl(
    app: str, bundled_server: Server, tmp_path: Path
):
    async with (
        place(None, app, bundled_server, ttl=4) as here,
        watching(here, "lobby") as bob,
        Presence.open(bundled_server.socket_url) as presence,
        chromium(tmp_path) as browser,
    ):
        await _hidden_in_the_room(browser, here, "lobby")
        deadline = time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline
            (member,) = [one for one in await presence.members("lobby") if one.user_id == "ann"]
            if member.last_active_at - member.joined_at > 10_000:
                break
            await asyncio.sleep(0.5)
        assert await bob.all() == ["joined ann", "updated ann away 1"]


async def test_a_page_is_away_before_it_is_frozen(app: str, bundled_server: Server, tmp_path: Path):
    async with (
        place(None, app, bundled_server) as here,
        watching(here, "lobby") as bob,
        chromium(tmp_path) as browser,
    ):
        ann = await _hidden_in_the_room(browser, here, "lobby")
        await ann.freeze()
        await bob.sees("joined ann", "updated ann away 1")
        await ann.thaw()
        await ann.front()
        await bob.sees("joined ann", "updated ann away 1", "updated ann 1")


async def test_a_page_frozen_for_longer_than_the_ttl_learns_of_it_when_it_is_back(
    app: str, bundled_server: Server, tmp_path: Path
):
    # Chromium closes the socket of a frozen page, so the force-leave does not reach it at that time.
    async with (
        place(None, app, bundled_server) as here,
        watching(here, "brief-talk") as bob,
        chromium(tmp_path) as browser,
    ):
        ann = await _hidden_in_the_room(browser, here, "brief-talk")
        await ann.freeze()
        assert await bob.receive_departure_of("ann") == "inactivity_timeout"
        await ann.thaw()
        await ann.front()
        await ann.comes_to_read("document.querySelector('#alert p')?.textContent", IDLE_MESSAGE)
        assert bob.seen[-1] == "left ann inactivity_timeout"
