"""A room of any size is listed in pages; a request that was one too many waits as long as the server says."""

import time

import anyio

from reactor.client.open_connection import refusal, retry_delay
from reactor.errors import Refused
from reactor.presence.keys import Entry
from reactor.protocol.messages import ErrorMessage
from tests.support.nodes import served
from tests.support.servers import Server
from tests.system.client.clients import client_of


async def test_the_pages_of_a_room_that_is_too_large_to_list_hold_all_members(bundled_server: Server):
    async with served(bundled_server, max_members_view=10) as node, client_of(node) as client:
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                entry = Entry("stadium", f"user {number}")
                tasks.start_soon(lambda it: node.store.join(*it, ttl=60_000), (entry, f"n.{number}"))
        seen, pages, cursor = set[str](), 0, None
        while pages == 0 or cursor is not None:
            page = await client.members_page("stadium", limit=50, cursor=cursor)
            assert page.count == 300
            seen |= {member.user_id for member in page.members}
            pages, cursor = pages + 1, page.cursor
        assert seen == {f"user {number}" for number in range(300)}
        assert pages > 2


async def test_the_page_of_an_empty_room_is_empty(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as client:
        page = await client.members_page("nowhere")
        assert (page.members, page.count, page.cursor) == ([], 0, None)


async def test_a_request_that_cost_too_much_is_sent_again_when_the_server_takes_it(bundled_server: Server):
    async with (
        served(bundled_server, cost_per_second=20, cost_burst=10) as node,
        client_of(node, request_timeout=30) as client,
    ):
        began = time.monotonic()
        while not node.handler.costs.refused.total():
            assert await client.count("lobby") == 0
        # It was answered in the end, and not by asking again and again.
        assert node.handler.costs.refused.total() == 1
        assert time.monotonic() - began < 60


def test_the_delay_is_what_the_server_says_or_longer():
    error = ErrorMessage("too_many_requests", "wait", retry_after=7000)
    assert [retry_delay(error, chance) for chance in (0.0, 0.5, 1.0)] == [7.0, 10.5, 14.0]
    assert retry_delay(ErrorMessage("too_many_requests", "wait"), 0.0) == 1.0
    assert retry_delay(ErrorMessage("too_many_requests", "wait", retry_after=10), 0.0) == 1.0
    refused = refusal(error)
    assert isinstance(refused, Refused)
    assert refused.retry_after == 7.0
    other = refusal(ErrorMessage("forbidden", "no"))
    assert isinstance(other, Refused)
    assert other.retry_after is None
