"""A people_hook that hangs for some users costs those who ask about them, and no others."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from reactor.server.node import Node
from tests.support import hooks
from tests.support.nodes import served
from tests.support.people import watch
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.signing import SECRET, token
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def released():
    hooks.RELEASED.clear()
    hooks.WATCHERS.clear()
    yield
    hooks.RELEASED.set()


@asynccontextmanager
async def user(node: Node, name: str) -> AsyncIterator[RawClient]:
    headers = {"Authorization": f"Bearer {token(sub=name)}"}
    async with RawClient.connect(node, additional_headers=headers) as client:
        yield client


async def test_a_hook_that_hangs_for_one_user_answers_the_others_of_the_same_address(bundled_server: Server):
    hook = "tests.support.hooks:may_watch_in_a_thread"
    async with (
        served(bundled_server, auth_secret=SECRET, people_hook=hook, trusted_proxies="none") as node,
        user(node, "ann") as ann,
    ):
        async with AsyncExitStack() as stack:
            for connection in range(5):
                mallory = await stack.enter_async_context(user(node, "mallory"))
                for number in range(4):
                    await mallory.send("people:watch", userIds=[f"stuck {connection} {number}"])
            await until(lambda: hooks.WATCHERS.count("mallory") >= 2)
            for number in range(20):
                assert len(await watch(ann, f"friend {number}")) == 1
        # What hangs for a closed connection still counts, so that it cannot be repeated without end.
        async with user(node, "mallory") as mallory:
            reply = await mallory.answer("people:watch", userIds=["friend"])
            assert reply["code"] == "unavailable"
        assert hooks.WATCHERS.count("mallory") == 2
        assert len(await watch(ann, "friend")) == 1
