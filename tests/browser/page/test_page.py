"""The page in a real browser on a real server: what it shows and what its buttons do."""

import pytest
from playwright.async_api import Browser, expect

from reactor.presence.api import Presence
from tests.browser.page.browser import site_on
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.signing import SECRET, token

pytestmark = pytest.mark.asyncio(loop_scope="session")  # as the browser, which starts once


async def test_two_pages_see_each_other_join(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        ada = await (await site.visit("Ada")).join()
        await ada.counts(1)
        await expect(ada.page.locator("#members-hint")).to_contain_text("the only member")
        bob = await (await site.visit("Bob")).join()
        await ada.sees("Bob", "here", "here since")
        await ada.reads("Bob joined")
        await ada.counts(2)
        await expect(ada.page.locator("#members-hint")).to_be_hidden()
        await expect(ada.page).to_have_title("(2) lobby · reactor")
        await bob.sees("Ada", "here")
        await bob.sees("Bob", "here", "you")
        assert await bob.lines() == ["You joined the room"]


async def test_one_click_joins_with_a_random_name(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        one, two = [await site.visit(reduced_motion="no-preference") for _ in range(2)]
        await one.join()
        await two.join()
        await one.counts(2)
        names = await one.page.locator("#members .name").all_inner_texts()
        assert len({len(name.split()) for name in names}) == 1
        await expect(one.page.locator("#room-title")).to_have_text("demo-lobby")
        await expect(one.page.locator("#fact-ttl")).to_have_text("30 s")


async def test_away_and_back(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await bob.press("Step away")
        await ada.sees("Bob", "away", "away")
        await ada.reads("Bob stepped away")
        await bob.reads("You stepped away")
        await bob.press("Come back")
        await ada.sees("Bob", "here")
        await ada.reads("Bob is back")
        await bob.reads("You are back")


async def test_leaving_shows_its_reason_and_joining_again_works(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await ada.counts(2)
        await bob.press("Leave")
        await ada.sees("Bob", "left", "left")
        await ada.reads("Bob left")
        await ada.counts(1)
        await expect(ada.row("Bob")).to_have_count(0)
        await expect(bob.page.locator("#notice")).to_have_text("You left the room. You can join again.")
        await bob.status_is("Not connected")
        await bob.join()
        await ada.sees("Bob", "here")


async def test_a_connection_lost_for_less_than_the_grace_is_not_shown_to_others(
    browser: Browser, bundled_server: Server
):
    async with site_on(browser, bundled_server, grace=30) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await ada.sees("Bob", "here")
        former = len(ada.diffs())
        await bob.press("Drop the socket")
        await bob.status_is("Reconnecting in")
        await expect(bob.page.locator("#ring-word")).to_have_text("disconnected")
        await bob.press("Reconnect")
        await bob.reads("You reconnected within the grace; the other members saw no change")
        await bob.status_is("Connected")
        await ada.press("Step away")  # the next diff that Ada receives is her own: there was none before it
        await ada.reads("You stepped away")
        assert len(ada.diffs()) == former + 1
        assert await ada.lines() == ["You joined the room", "Bob joined", "You stepped away"]


async def test_a_dropped_socket_reconnects_automatically(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, grace=30) as site:
        bob = await (await site.visit("Bob")).join()
        await bob.page.clock.install()
        await bob.press("Drop the socket")
        await bob.status_is("Reconnecting in 8 s")
        await bob.page.clock.run_for(7000)
        await bob.status_is("Reconnecting in 1 s")
        await bob.page.clock.run_for(1000)
        await bob.reads("You reconnected within the grace; the other members saw no change")


async def test_a_member_that_stays_disconnected_leaves_after_the_grace(
    browser: Browser, bundled_server: Server
):
    async with site_on(browser, bundled_server, grace=0.5) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await bob.press("Drop the socket")
        await bob.press("Stay disconnected")
        await bob.status_is("Disconnected")
        await ada.sees("Bob", "left", "connection lost")
        await ada.reads("Bob lost the connection and did not return within the grace disconnected")
        await bob.press("Reconnect")
        await bob.reads("You rejoined as a new member: the grace had ended")
        await ada.sees("Bob", "here")


async def test_a_closed_tab_leaves_after_the_grace(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, grace=0.5) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await bob.page.close()
        await ada.reads("Bob lost the connection and did not return within the grace disconnected")


async def test_a_reloaded_page_rejoins_without_a_diff(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, grace=30) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await ada.sees("Bob", "here")
        former = len(ada.diffs())
        await bob.page.reload()
        await bob.reads("You rejoined within the grace; the other members saw no change")
        await bob.sees("Bob", "here", "you")
        assert len(ada.diffs()) == former


async def test_a_silent_member_expires_with_a_popup_and_others_see_the_reason(
    browser: Browser, bundled_server: Server
):
    async with site_on(
        browser, bundled_server, ttl=2, inactivity_message="You were idle, so you are out."
    ) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await bob.press("Go silent")
        await expect(bob.page.locator("#ring-word")).to_have_text("until expiry")
        popup = bob.page.get_by_role("dialog", name="Your membership has ended")
        await expect(popup).to_contain_text("You were idle, so you are out.")
        await expect(popup.get_by_role("button")).to_have_text("OK")
        await expect(popup.get_by_role("button")).to_be_focused()
        await expect(bob.page.locator("#ring-time")).to_have_text("0:00")
        await ada.reads("Bob expired without a heartbeat inactivity_timeout")
        await ada.counts(1)
        await bob.page.keyboard.press("Enter")
        await expect(popup).to_be_hidden()
        await expect(bob.page.locator("#join-screen")).to_be_visible()
        await expect(bob.page.get_by_role("button", name="Join the room")).to_be_focused()
        await bob.join()
        await ada.sees("Bob", "here")


async def test_heartbeats_keep_a_member_and_are_displayed(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, ttl=1.5) as site:
        ada = await (await site.visit("Ada")).join()
        # The first is sent at once, each other one after a third of the TTL.
        await expect(ada.page.locator("#strip .beat").nth(4)).to_be_attached()
        await expect(ada.page.locator("#beat-last")).to_contain_text("ms")
        assert await ada.page.locator("#ring").get_attribute("data-level") == "full"
        await ada.sees("Ada", "here", "you")


async def test_a_kicked_member_gets_the_popup(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site, Presence.open(bundled_server.socket_url) as presence:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await presence.kick("lobby", "bob", "Out you go.")
        await expect(bob.page.get_by_role("dialog", name="You were removed")).to_contain_text("Out you go.")
        await ada.sees("Bob", "left", "removed")
        await ada.reads("Bob was removed kicked")
        await bob.page.keyboard.press("Escape")
        await expect(bob.page.locator("#join-screen")).to_be_visible()


async def test_one_user_in_two_tabs_is_one_member(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, grace=30) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        async with bob.context.expect_page() as opening:
            await bob.page.get_by_role("link", name="Another tab").click()
        other = await site.open_page(await opening.value, "Bob", "lobby")
        await other.join()
        await ada.sees("Bob", "here", "2 connections")
        await ada.reads("Bob opened another connection, 2 now")
        await ada.counts(2)
        await bob.reads("You opened another connection, 2 now")
        await other.press("Leave")
        await ada.reads("Bob closed a connection, 1 left")
        await expect(ada.row("Bob")).not_to_contain_text("connections")


async def test_another_tab_is_another_user_in_the_same_room(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        ada = await (await site.visit("Ada", room="a room/with & signs")).join()
        async with ada.context.expect_page() as opening:
            await ada.page.get_by_role("link", name="Another tab").click()
        other = await opening.value
        await expect(other.get_by_label("Room", exact=True)).to_have_value("a room/with & signs")
        await other.get_by_role("button", name="Join the room").click()
        await ada.counts(2)


async def test_a_large_room_is_shown_as_a_count(browser: Browser, bundled_server: Server):
    async with (
        site_on(browser, bundled_server, max_members_view=2) as site,
        RawClient.connect(site.node) as third,
    ):
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await ada.sees("Bob", "here")
        await third.join("lobby", "cy")
        await ada.reads("The room is served as a count now")
        await expect(ada.page.locator("#members .member")).to_have_count(0)
        await expect(ada.page.locator("#members-hint")).to_contain_text("too many to list")
        await ada.counts(3)
        await third.ask("leave_room", "room:left", roomId="lobby")
        await ada.counts(2)
        await bob.press("Leave")
        await ada.reads("The room is served as a list of members again")
        await ada.sees("Ada", "here", "you")
        await expect(ada.page.locator("#members .member")).to_have_count(1)


async def test_a_new_name_and_new_data_are_shown(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site, RawClient.connect(site.node) as other:
        ada = await (await site.visit("Ada")).join()
        await other.join("lobby", "cy")
        await ada.sees("cy", "here")
        await other.ask("room:update", "room:updated", roomId="lobby", username="Cyd")
        await ada.reads("Cyd changed the name from “cy”")
        await ada.sees("Cyd", "here")
        await other.ask("room:update", "room:updated", roomId="lobby", data={"mood": "fine"})
        await ada.reads("Cyd changed the data")
        await ada.sees("Cyd", "here", '{"mood":"fine"}')


async def test_a_visitor_sets_data_and_sees_why_the_server_refuses_some(
    browser: Browser, bundled_server: Server
):
    async with site_on(browser, bundled_server) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        for typed, shown in [('{"mood": "fine"}', '{"mood":"fine"}'), ("just text", '"just text"')]:
            await bob.page.get_by_label("Your data").fill(typed)
            await bob.press("Set")
            await ada.sees("Bob", "here", shown)
        await bob.page.get_by_label("Your data").fill("é" * 3000)
        await bob.press("Set")
        await expect(bob.page.get_by_role("alert")).to_contain_text("4096")
        await ada.sees("Bob", "here", '"just text"')
        await bob.page.get_by_label("Your data").fill("shorter")
        await bob.press("Set")
        await ada.sees("Bob", "here", '"shorter"')
        await expect(bob.page.get_by_role("alert")).to_have_count(0)


async def test_a_server_with_tokens_asks_for_one(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, auth_secret=SECRET, may_fail=True) as site:
        ada = await site.visit("Ada")
        await expect(ada.page.get_by_label("Token")).to_be_hidden()
        await ada.page.get_by_role("button", name="Join the room").click()
        await expect(ada.page.get_by_role("alert")).to_contain_text("token")
        await ada.page.get_by_label("Token").fill(token(sub="ada-7", rooms=["lobby"]))
        await ada.join()
        await expect(ada.page.locator("#fact-user")).to_have_text("ada-7")
        await ada.page.reload()
        await expect(ada.page.locator("#fact-user")).to_have_text("ada-7")


async def test_a_visitor_may_receive_the_count_alone(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        ada = await site.visit("Ada")
        await ada.page.get_by_label("Receive", exact=True).select_option("only their number")
        await ada.join()
        bob = await (await site.visit("Bob")).join()
        await ada.counts(2)
        await expect(ada.page.locator("#members .member")).to_have_count(0)
        await bob.sees("Ada", "here")


async def test_a_name_of_blanks_is_no_name(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site, RawClient.connect(site.node) as other:
        ada = await site.visit("Ada")
        await ada.page.get_by_label("Your name").fill("   ")
        await ada.page.get_by_role("button", name="Join the room").click()
        assert await ada.page.get_by_label("Your name").evaluate("field => field.validationMessage")
        await expect(ada.page.locator("#room")).to_be_hidden()
        await ada.page.get_by_label("Your name").fill(" Ada ")
        await ada.join()
        await other.join("lobby", "cy", username="\u2003 ")
        await ada.sees("cy", "here")
        await ada.sees("Ada", "here", "you")


async def test_a_list_without_a_connection_is_shown_as_of_its_time(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, grace=30) as site:
        ada = await (await site.visit("Ada")).join()
        await ada.press("Drop the socket")
        await expect(ada.page.locator("#members-as-of")).to_contain_text("As of")
        await expect(ada.page.locator("#count-word")).to_contain_text("here at")
        await expect(ada.page.locator("#members")).to_have_class("member-list stale")
        await ada.press("Reconnect")
        await expect(ada.page.locator("#members-as-of")).to_be_hidden()
        await expect(ada.page.locator("#count-word")).to_have_text("here")


async def test_visitors_send_each_other_messages(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server) as site:
        ada, bob = await (await site.visit("Ada")).join(), await (await site.visit("Bob")).join()
        await ada.page.get_by_label("Message to the others").fill("<b>Tea?</b>")
        await ada.press("Send")
        await bob.reads("Ada: <b>Tea?</b>")
        await ada.reads("You: <b>Tea?</b>")
        await expect(ada.page.get_by_label("Message to the others")).to_have_value("")
        await ada.press("Send")
        assert (await bob.lines())[-1] == "Ada: <b>Tea?</b>"


async def test_a_refused_message_shows_why(browser: Browser, bundled_server: Server):
    async with site_on(browser, bundled_server, member_messages=False) as site:
        ada = await (await site.visit("Ada")).join()
        await ada.page.get_by_label("Message to the others").fill("Tea?")
        await ada.press("Send")
        await expect(ada.page.get_by_role("alert")).to_contain_text("messages")
