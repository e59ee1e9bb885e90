"""Who is let in: by number, by address and by origin; the refusals are HTTP."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from reactor.gateway.admission import Admission
from reactor.gateway.http import Site
from reactor.settings import Settings
from tests.support.gateway import HEARTBEAT, Raw, Served, bystander, request, serving, text

EVERYONE: dict[str, Any] = {"trusted_proxies": "none"}


async def refusal(served: Served, **headers: str) -> tuple[int, str]:
    """The status and Retry-After that a new socket gets."""
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
        assert await refusal(served) == (503, "Retry-After: 5")
        assert await refusal(served) == (503, "Retry-After: 5")
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
        held = [await stack.enter_async_context(await served.raw(handshake=False)) for _ in range(90)]
        assert await held[-1].ended()
        assert len(served.gateway._manager.pending) <= 66  # type: ignore[union-attr]
        assert not held[0].reader.at_eof()


async def test_the_connections_of_one_address_are_limited():
    async with (
        serving(max_per_address=2, **EVERYONE) as served,
        await served.raw() as one,
        await served.raw() as two,
    ):
        assert await refusal(served) == (429, "Retry-After: 5")
        assert await works(one)
        two.writer.transport.abort()
        await served.handler.until(lambda: len(served.handler.closed_) == 1)
        async with await served.raw() as late:
            assert await works(late)


async def test_the_limit_of_one_address_does_not_affect_another():
    async with serving(max_per_address=1, **EVERYONE) as served, await served.raw() as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, local_addr=("127.0.0.2", 0))
        async with Raw(reader, writer) as other:
            await other.shake_hands()
            assert await works(other)
            assert await works(one)


async def test_new_connections_of_one_address_are_rate_limited():
    async with serving(new_per_second=2, **EVERYONE) as served:
        for _ in range(4):
            async with await served.raw():
                pass
        assert (await refusal(served))[0] == 429
        await asyncio.sleep(1.0)  # after a second there may be two more
        async with await served.raw():
            pass


async def test_behind_a_trusted_proxy_the_client_address_is_counted():
    async with (
        serving(max_per_address=1) as served,
        await served.raw(X_Forwarded_For="203.0.113.7"),
        await served.raw(X_Forwarded_For="203.0.113.7, 198.51.100.1"),
    ):
        assert (await refusal(served, X_Forwarded_For="203.0.113.7"))[0] == 429
        assert (await refusal(served, X_Forwarded_For="9.9.9.9, 203.0.113.7"))[0] == 429, "its own words"
        assert (await refusal(served, X_Forwarded_For="203.0.113.7:4711"))[0] == 429
        assert (await refusal(served, X_Forwarded_For="203.0.113.7, 127.0.0.1"))[0] == 429, "two proxies"
        async with await served.raw(X_Forwarded_For="203.0.113.8"), await served.raw(), await served.raw():
            pass


async def test_the_forwarded_header_of_an_untrusted_peer_is_ignored():
    async with (
        serving(max_per_address=1, trusted_proxies="10.0.0.0/8") as served,
        await served.raw(X_Forwarded_For="203.0.113.7"),
    ):
        assert (await refusal(served, X_Forwarded_For="203.0.113.8"))[0] == 429


async def test_connections_are_uncounted_however_they_end():
    async with serving(max_per_address=3, open_timeout=0.3, **EVERYONE) as served:
        for _ in range(3):
            async with AsyncExitStack() as stack:
                silent = await stack.enter_async_context(await served.raw(handshake=False))
                broken = await stack.enter_async_context(await served.raw(handshake=False))
                broken.write(b"nonsense\r\n\r\n")
                page = await stack.enter_async_context(await served.raw(handshake=False))
                page.write(request("/healthz"))
                assert await silent.ended()
                assert await broken.ended()
                assert await page.ended()
        manager = served.gateway._manager
        assert manager is not None
        await manager.empty.wait()
        assert [usage.accepted for usage in manager.admission._addresses._usage.values()] == [0]


async def test_the_size_of_request_headers_is_bounded():
    async with serving(max_headers=2000) as served, await served.raw(handshake=False) as client:
        client.write(request(**{f"X_{number}": "y" * 90 for number in range(30)}))
        assert (await client.reader.read()).startswith(b"HTTP/1.1 431 ")
        async with await served.raw(handshake=False) as dripping:
            answered = asyncio.ensure_future(dripping.reader.readline())
            dripping.write(b"GET /ws HTTP/1.1\r\n")
            while not answered.done():
                dripping.write(b"X-More: and more and more\r\n")
                await asyncio.sleep(0.001)
            assert (await answered).startswith(b"HTTP/1.1 431 ")
        assert served.handler.opened_ == []


# Origins.

HERE = {"host": "127.0.0.1"}
OUT = {"host": "0.0.0.0"}
KEY = {"auth_secret": "x" * 32}


@pytest.mark.parametrize(
    ("settings", "origin", "host", "welcome"),
    [
        (HERE, None, "127.0.0.1:8765", True),
        (HERE, "http://127.0.0.1:8765", "127.0.0.1:8765", True),
        (HERE, "http://localhost:5173", "127.0.0.1:8765", True),
        (HERE, "http://app.localhost", "localhost:8765", True),
        (HERE, "http://[::1]:3000", "127.0.0.1:8765", True),
        (HERE, "https://evil.example", "127.0.0.1:8765", False),
        (HERE, "http://evil.example:8765", "evil.example:8765", False),  # DNS rebinding
        (HERE, "http://10.0.2.2:8765", "10.0.2.2:8765", True),  # an emulator's name for this machine
        (HERE, "http://localhost.evil.example", "127.0.0.1", False),
        (HERE, "http://127.0.0.1.evil.example", "127.0.0.1", False),
        (HERE, "null", "127.0.0.1:8765", False),
        (HERE, "", "127.0.0.1:8765", False),
        (HERE, "http://[::1", "127.0.0.1:8765", False),
        (OUT, "https://chat.example", "chat.example", True),
        (OUT, "https://chat.example", "chat.example:443", True),
        (OUT, "https://CHAT.example", "chat.Example", True),
        (OUT, "http://chat.example:8765", "chat.example:8765", True),
        (OUT, "http://chat.example:8765", "chat.example:9000", False),
        (OUT, "https://evil.example", "chat.example", False),
        (OUT, "https://chat.example.evil.example", "chat.example", False),
        (KEY, "https://anyone.example", "127.0.0.1:8765", True),
        (KEY, "null", "127.0.0.1:8765", True),
        (KEY | {"origins": "https://ours.example"}, "https://ours.example", "x", True),
        (KEY | {"origins": "https://ours.example"}, "https://theirs.example", "x", False),
        (KEY | {"origins": "https://ours.example"}, None, "x", True),
        ({"origins": "*"}, "https://anyone.example", "x", True),
        ({"origins": "https://ours.example"}, "http://127.0.0.1:8765", "127.0.0.1:8765", False),
    ],
)
def test_which_origins_may_connect(settings, origin, host, welcome):
    from websockets.datastructures import Headers

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
    assert admission.allows_origin(headers) is welcome
    headers["Origin"] = "http://127.0.0.1:8765"
    if origin is not None:
        assert not admission.allows_origin(headers), "two origins are none"


async def test_a_rejected_origin_is_told_which_setting_allows_it():
    async with serving() as served, bystander(served):
        async with await served.raw(handshake=False) as client:
            client.write(request(Origin="https://evil.example"))
            answer = await client.reader.read()
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"setting origins" in answer
