"""Admission by number of connections, address and origin; rejections are HTTP responses."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.datastructures import Headers

from reactor.gateway.admission import Admission
from reactor.gateway.http import Site
from reactor.settings import Settings
from tests.support.gateway import HEARTBEAT, Raw, Served, bystander, request, serving, text

NO_PROXIES: dict[str, Any] = {"trusted_proxies": "none"}


async def rejection(served: Served, **headers: str) -> tuple[int, str]:
    """The status and Retry-After of the response to a new connection."""
    async with await served.raw(handshake=False) as client:
        client.write(request(**headers))
        async with asyncio.timeout(10):
            head = (await client.reader.read()).partition(b"\r\n\r\n")[0].decode()
    after = [line for line in head.split("\r\n") if line.lower().startswith("retry-after")]
    return int(head.split()[1]), after[0] if after else ""


async def works(client: Raw) -> bool:
    client.write(text(HEARTBEAT))
    return bool((await client.message())["type"] == "room:heartbeat:ack")


async def test_a_full_server_answers_503_and_serves_its_connections():
    async with serving(max_connections=3) as served, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await served.raw()) for _ in range(3)]
        assert await rejection(served) == (503, "Retry-After: 5")
        assert await rejection(served) == (503, "Retry-After: 5")
        assert served.gateway.counts.rejected == {"503": 2}
        assert all([await works(client) for client in clients])
        clients[0].writer.transport.abort()
        await served.handler.until(lambda: len(served.handler.closed_) == 1)
        async with await served.raw() as late:
            assert await works(late)


async def test_a_full_server_still_answers_health_checks():
    async with (
        serving(max_connections=1) as served,
        await served.raw(),
        await served.raw(handshake=False) as probe,
    ):
        probe.write(request("/healthz"))
        assert (await probe.reader.read()).startswith(b"HTTP/1.1 200 ")


async def test_connections_far_beyond_the_limit_are_dropped_without_a_response():
    async with serving(max_connections=2) as served, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await served.raw(handshake=False)) for _ in range(90)]
        assert await clients[-1].ended()
        assert len(served.gateway._manager.pending) <= 66  # type: ignore[union-attr]
        assert not clients[0].reader.at_eof()


async def test_the_connections_of_one_address_are_limited():
    async with (
        serving(max_per_address=2, **NO_PROXIES) as served,
        await served.raw() as one,
        await served.raw() as two,
    ):
        assert await rejection(served) == (429, "Retry-After: 5")
        assert await works(one)
        two.writer.transport.abort()
        await served.handler.until(lambda: len(served.handler.closed_) == 1)
        async with await served.raw() as late:
            assert await works(late)


async def test_the_limit_of_one_address_does_not_affect_another():
    async with serving(max_per_address=1, **NO_PROXIES) as served, await served.raw() as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, local_addr=("127.0.0.2", 0))
        async with Raw(reader, writer) as other:
            await other.shake_hands()
            assert await works(other)
            assert await works(one)


async def test_new_connections_of_one_address_are_rate_limited():
    async with serving(new_per_second=1, **NO_PROXIES) as served:
        for _ in range(2):
            async with await served.raw():
                pass
        assert (await rejection(served))[0] == 429
        await asyncio.sleep(1.0)  # after a second one more is accepted
        async with await served.raw():
            pass


async def test_behind_a_trusted_proxy_the_client_address_is_counted():
    async with (
        serving(max_per_address=1) as served,
        await served.raw(X_Forwarded_For="203.0.113.7"),
        await served.raw(X_Forwarded_For="203.0.113.7, 198.51.100.1"),
    ):
        assert (await rejection(served, X_Forwarded_For="203.0.113.7"))[0] == 429
        assert (await rejection(served, X_Forwarded_For="9.9.9.9, 203.0.113.7"))[0] == 429, (
            "a hop added by the client"
        )
        assert (await rejection(served, X_Forwarded_For="203.0.113.7:4711"))[0] == 429
        assert (await rejection(served, X_Forwarded_For="203.0.113.7, 127.0.0.1"))[0] == 429, "two proxies"
        async with await served.raw(X_Forwarded_For="203.0.113.8"), await served.raw(), await served.raw():
            pass


async def test_the_forwarded_header_of_an_untrusted_peer_is_ignored():
    async with (
        serving(max_per_address=1, trusted_proxies="10.0.0.0/8") as served,
        await served.raw(X_Forwarded_For="203.0.113.7"),
    ):
        assert (await rejection(served, X_Forwarded_For="203.0.113.8"))[0] == 429


async def test_connections_are_uncounted_however_they_end():
    async with serving(max_per_address=3, open_timeout=0.3, **NO_PROXIES) as served:
        for _ in range(3):
            async with AsyncExitStack() as stack:
                silent = await stack.enter_async_context(await served.raw(handshake=False))
                invalid = await stack.enter_async_context(await served.raw(handshake=False))
                invalid.write(b"nonsense\r\n\r\n")
                page = await stack.enter_async_context(await served.raw(handshake=False))
                page.write(request("/healthz"))
                assert await silent.ended()
                assert await invalid.ended()
                assert await page.ended()
        manager = served.gateway._manager
        assert manager is not None
        await manager.empty.wait()
        assert [usage.accepted for usage in manager.admission._addresses._usage.values()] == [0]


async def test_the_size_of_request_headers_is_bounded():
    async with serving(max_headers=2000) as served, await served.raw(handshake=False) as client:
        client.write(request(**{f"X_{number}": "y" * 90 for number in range(30)}))
        assert (await client.reader.read()).startswith(b"HTTP/1.1 431 ")
        async with await served.raw(handshake=False) as slow:
            response = asyncio.ensure_future(slow.reader.readline())
            slow.write(b"GET /ws HTTP/1.1\r\n")
            while not response.done():
                slow.write(b"X-More: and more and more\r\n")
                await asyncio.sleep(0.001)
            assert (await response).startswith(b"HTTP/1.1 431 ")
        assert served.handler.opened_ == []


# Origins.

LOCAL = {"host": "127.0.0.1"}
PUBLIC = {"host": "0.0.0.0"}
TOKENS = {"auth_secret": "x" * 32}


@pytest.mark.parametrize(
    ("settings", "origin", "host", "allowed"),
    [
        (LOCAL, None, "127.0.0.1:8765", True),
        (LOCAL, "http://127.0.0.1:8765", "127.0.0.1:8765", True),
        (LOCAL, "http://localhost:5173", "127.0.0.1:8765", True),
        (LOCAL, "http://app.localhost", "localhost:8765", True),
        (LOCAL, "http://[::1]:3000", "127.0.0.1:8765", True),
        (LOCAL, "https://evil.example", "127.0.0.1:8765", False),
        (LOCAL, "http://evil.example:8765", "evil.example:8765", False),  # DNS rebinding
        (LOCAL, "http://10.0.2.2:8765", "10.0.2.2:8765", True),  # an emulator's name for this machine
        (LOCAL, "http://localhost.evil.example", "127.0.0.1", False),
        (LOCAL, "http://127.0.0.1.evil.example", "127.0.0.1", False),
        (LOCAL, "null", "127.0.0.1:8765", False),
        (LOCAL, "", "127.0.0.1:8765", False),
        (LOCAL, "http://[::1", "127.0.0.1:8765", False),
        (PUBLIC, "https://chat.example", "chat.example", True),
        (PUBLIC, "https://chat.example", "chat.example:443", True),
        (PUBLIC, "https://CHAT.example", "chat.Example", True),
        (PUBLIC, "http://chat.example:8765", "chat.example:8765", True),
        (PUBLIC, "http://chat.example:8765", "chat.example:9000", False),
        (PUBLIC, "https://evil.example", "chat.example", False),
        (PUBLIC, "https://chat.example.evil.example", "chat.example", False),
        (TOKENS, "https://any.example", "127.0.0.1:8765", True),
        (TOKENS, "null", "127.0.0.1:8765", True),
        (TOKENS | {"origins": "https://ours.example"}, "https://ours.example", "x", True),
        (TOKENS | {"origins": "https://ours.example"}, "https://theirs.example", "x", False),
        (TOKENS | {"origins": "https://ours.example"}, None, "x", True),
        ({"origins": "*"}, "https://any.example", "x", True),
        ({"origins": "https://ours.example"}, "http://127.0.0.1:8765", "127.0.0.1:8765", False),
    ],
)
def test_which_origins_may_connect(settings, origin, host, allowed):
    admission = Admission(
        Settings(**settings),
        Site(lambda: (True, "ok")),
        limit=1,
        occupied=lambda: 0,
        verify=lambda _token: None,
    )
    headers = Headers({"Host": host})
    if origin is not None:
        headers["Origin"] = origin
    assert admission.allows_origin(headers) is allowed
    headers["Origin"] = "http://127.0.0.1:8765"
    if origin is not None:
        assert not admission.allows_origin(headers), "two Origin headers"


async def test_a_rejected_origin_learns_which_setting_allows_it():
    async with serving() as served, bystander(served):
        async with await served.raw(handshake=False) as client:
            client.write(request(Origin="https://evil.example"))
            response = await client.reader.read()
        assert response.startswith(b"HTTP/1.1 403 ")
        assert b"setting origins" in response
