"""Revoked tokens: refused everywhere, their sockets closed, through restarts and losses of Redis's data."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from reactor import Client, Presence
from reactor.errors import SettingError, Unavailable
from reactor.presence.revocations import MAX_REVOCATIONS, SAME_SECOND, TooManyRevocations
from reactor.protocol.identity import Identity
from reactor.server.node import Node
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.signing import SECRET, token
from tests.support.waiting import until

KEY = "{reactor:fleet}:revoked"


def issued(ago: float, **more: Any) -> str:
    """A token of ann that was issued some seconds ago."""
    return token(iat=int(time.time() - ago), **more)


async def login(stack: AsyncExitStack, node: Node, text: str) -> RawClient:
    client = await stack.enter_async_context(RawClient.connect(node))
    await client.ask("auth", "auth:ok", token=text)
    return client


async def refused(stack: AsyncExitStack, node: Node, text: str) -> tuple[int, str, str]:
    """The close code, the code and the sentence with which a node refuses a token."""
    client = await stack.enter_async_context(RawClient.connect(node))
    answer = await client.answer("auth", token=text)
    assert answer["type"] == "error", answer
    return await client.closed(), answer["code"], answer["message"]


async def test_revoked_tokens_are_refused_and_their_sockets_closed_on_every_node(
    redis_server: Server,
) -> None:
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(served(redis_server, auth_secret=SECRET)) for _ in range(2)
        ]
        presence = await stack.enter_async_context(Presence.open(redis_server.socket_url))
        old, undated = issued(60), token()
        sockets = [await login(stack, node, text) for node in (one, two) for text in (old, undated)]
        await sockets[0].join("lobby", "ann")
        waiting = await stack.enter_async_context(RawClient.connect(two))
        bob = await login(stack, two, issued(60, sub="bob"))

        before = int(time.time() * 1000)
        assert before - 1000 < await presence.revoke("ann") < before + 10_000
        for client in sockets:
            assert await client.closed() == 4001
            (error,) = client.of("error")
            assert (error["code"], "revoked" in error["message"]) == ("unauthorized", True)
        for node in (one, two):
            sentence = "the token was revoked: send one that was issued later"
            assert await refused(stack, node, old) == (4001, "unauthorized", sentence)
            code, _, sentence = await refused(stack, node, undated)
            assert (code, "no iat" in sentence) == (4001, True)
            fresh = await login(stack, node, token(iat=int(time.time()) + 1))
            await fresh.join("lobby", "ann")
        answer = await waiting.answer("auth", token=old)
        assert (answer["type"], await waiting.closed()) == ("error", 4001)
        async with RawClient.connect(one, additional_headers={"Authorization": f"Bearer {old}"}) as bearer:
            assert await bearer.closed() == 4001
        assert bob.open

        # A node that starts later knows it from the first client on.
        three = await stack.enter_async_context(served(redis_server, auth_secret=SECRET))
        assert (await refused(stack, three, old))[0] == 4001


async def test_only_tokens_issued_until_the_given_time_are_revoked(redis_server: Server) -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(served(redis_server, auth_secret=SECRET))
        presence = await stack.enter_async_context(Presence.open(redis_server.socket_url))
        newer = await login(stack, node, issued(60))
        older = await login(stack, node, issued(600))
        time_ = int(time.time() - 300) * 1000
        assert await presence.revoke("ann", time_) == time_
        assert await older.closed() == 4001
        assert await presence.revoke("ann", time_ - 100_000) == time_, "an earlier time takes nothing back"
        await newer.barrier()
        assert newer.open
        assert await presence.revoke("ann", time_ + 10**9) < time_ + 10**9, "a time to come counts as now"
        for wrong in (1_700_000_000, "now", True):
            with pytest.raises(SettingError, match="milliseconds"):
                await presence.revoke("ann", wrong)  # type: ignore[arg-type]


async def test_a_token_of_the_second_of_the_revocation_is_refused_for_the_moment_only(
    redis_server: Server,
) -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(served(redis_server, auth_secret=SECRET))
        now: Callable[[], int] = node.registry.now
        revoked_at = await node.revocation_store.revoke("ann")
        await until(lambda: len(node.revocations))
        second = revoked_at // 1000
        assert now() - revoked_at < SAME_SECOND
        code, error, _ = await refused(stack, node, token(iat=second))
        assert (code, error) == (1011, "unavailable"), "the client is to ask for another token"
        await login(stack, node, token(iat=second + 1))
        long_ago = (revoked_at // 1000 - 100) * 1000 + 500
        await node.revocation_store.revoke("bob", long_ago)
        await until(lambda: len(node.revocations) == 2)
        assert (await refused(stack, node, token(sub="bob", iat=long_ago // 1000)))[0] == 4001


async def test_a_client_with_a_token_function_returns_with_a_new_token(redis_server: Server) -> None:
    async with (
        served(redis_server, auth_secret=SECRET) as one,
        Presence.open(redis_server.socket_url) as presence,
    ):
        asked: list[str] = []

        def token_function() -> str:
            asked.append(issued(60 if not asked else 0))
            return asked[-1]

        async with Client(f"ws://127.0.0.1:{one.gateway.port}/ws", token=token_function) as client:
            await client.join("lobby")
            assert len(asked) == 1
            await presence.revoke("ann")
            # A token of the same second is refused for the moment, so the client may ask more than once.
            await until(lambda: len(asked) > 1 and [*one.roster.connections_of("lobby", "ann")])
            assert await presence.is_present("lobby", "ann")


revoked_meanwhile = anyio.Event()


async def slow_hook(text: str, _arrival: Any) -> Identity:
    """A hook that answers once the test has revoked the tokens of its user."""
    if text == "slow":
        await revoked_meanwhile.wait()
    return Identity(text, ("*",), issued_at=time.time() + 100 if text == "dated" else None)


async def test_a_token_that_is_revoked_while_a_hook_verifies_it_is_refused(redis_server: Server) -> None:
    async with AsyncExitStack() as stack:
        hook = f"{__name__}:slow_hook"
        node = await stack.enter_async_context(served(redis_server, auth_hook=hook))
        client = await stack.enter_async_context(RawClient.connect(node))
        await client.send("auth", token="slow")
        await client.send("join_room", roomId="lobby")
        await client.socket.ping()
        await node.revocation_store.revoke("slow")
        await until(lambda: len(node.revocations))
        revoked_meanwhile.set()
        assert await client.closed() == 4001
        assert not client.of("room:joined")
        await node.revocation_store.revoke("dated")
        await until(lambda: len(node.revocations) == 2)
        await login(stack, node, "dated")


async def test_revocations_survive_what_redis_and_the_subscription_lose(redis_server: Server) -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(served(redis_server, auth_secret=SECRET))
        ann = await login(stack, node, issued(60))
        bob = await login(stack, node, issued(60, sub="bob"))
        await node.revocation_store.revoke("ann")
        assert await ann.closed() == 4001
        redis_server.control.delete(KEY)
        # Published to no one: the node finds it when its subscription is renewed, and writes what was lost.
        redis_server.control.zadd(KEY, {"bob": int(time.time() * 1000)})
        redis_server.control.client_kill_filter(_type="pubsub")
        assert await bob.closed() == 4001
        await until(lambda: redis_server.control.zscore(KEY, "ann"))


async def test_revocations_work_while_redis_is_away(redis_server: Server) -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(served(redis_server, auth_secret=SECRET))
        old = issued(60)
        await node.revocation_store.revoke("ann")
        await until(lambda: len(node.revocations))
        redis_server.stop()
        with pytest.raises(Unavailable):
            await node.revocation_store.revoke("bob")
        assert (await refused(stack, node, old))[0] == 4001
        await login(stack, node, issued(60, sub="bob"))


async def test_revocations_end_and_their_number_is_bounded(redis_server: Server) -> None:
    async with AsyncExitStack() as stack:
        now = int(time.time() * 1000)
        redis_server.control.zadd(KEY, {f"user {number}".replace(" ", "%20"): now for number in range(1201)})
        redis_server.control.zadd(KEY, {"ann": now - 120_000})
        node = await stack.enter_async_context(served(redis_server, auth_secret=SECRET, revocation_kept=60))
        assert len(node.revocations) == 1201, "all pages are read, and what is over is removed"
        assert redis_server.control.zscore(KEY, "ann") is None
        assert node.revocations.objection("user 7", None) == "unauthorized"
        await login(stack, node, issued(600))
        redis_server.control.zadd(KEY, {f"u{number}": now for number in range(MAX_REVOCATIONS - 1201)})
        with pytest.raises(TooManyRevocations, match="revocation_kept"):
            await node.revocation_store.revoke("ann")
        assert await node.revocation_store.revoke("u7") > now, "one more of the same user is possible"
