"""Admission by number of connections, address and origin; rejections are HTTP responses."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.datastructures import Headers

from reactor.gateway.addresses import UNNAMED_FACTOR
from reactor.gateway.admission import Admission
from reactor.gateway.http import Site
from reactor.settings import Settings
from tests.support.gateway import HEARTBEAT, Raw, Served, bystander, request, serving, text
from tests.support.signing import SECRET, token

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


@pytest.mark.parametrize("forwarded", [{}, {"X_Forwarded_For": "unknown"}, {"X_Forwarded_For": "unix:"}])
async def test_clients_that_a_trusted_proxy_does_not_name_share_larger_limits(forwarded: dict[str, str]):
    async with serving(max_per_address=1, new_per_second=0) as served, AsyncExitStack() as stack:
        for _ in range(UNNAMED_FACTOR):
            await stack.enter_async_context(await served.raw(handshake=True, **forwarded))
        with capture_logs() as logs:
            assert (await rejection(served, **forwarded))[0] == 429
        assert logs[0]["address"] == "127.0.0.1 (a trusted proxy)"
        async with await served.raw(X_Forwarded_For="203.0.113.7") as named:
            assert await works(named)


async def test_those_that_have_not_joined_have_a_smaller_limit():
    async with (
        serving(max_unjoined_per_address=1, max_per_address=3, **NO_PROXIES) as served,
        await served.raw() as one,
    ):
        assert (await rejection(served))[0] == 429
        manager = served.gateway._manager
        assert manager is not None
        manager.settled(served.handler.opened_[0])  # as the handler notes a join
        async with await served.raw():
            assert (await rejection(served))[0] == 429
            manager.settled(served.handler.opened_[1])
            async with await served.raw():
                manager.settled(served.handler.opened_[2])
                assert (await rejection(served))[0] == 429  # the limit of all
        await served.handler.until(lambda: len(served.handler.closed_) == 2)
        assert await works(one)
        (usage,) = manager.admission._addresses._usage._values.values()
        assert (usage.accepted, usage.unsettled) == (1, 0)


async def test_a_token_counts_as_having_joined():
    options: dict[str, Any] = {"auth_secret": SECRET, "max_unjoined_per_address": 1}
    async with serving(**options, **NO_PROXIES) as served, AsyncExitStack() as stack:
        for _ in range(3):
            client = await stack.enter_async_context(await served.raw(Authorization=f"Bearer {token()}"))
            assert (await client.message())["type"] == "auth:ok"
        await stack.enter_async_context(await served.raw())
        assert (await rejection(served))[0] == 429


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
        assert [usage.accepted for usage in manager.admission._addresses._usage._values.values()] == [0]


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

_PROBE = b"GET /ws HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\n\r\n"
LOCAL = {"host": "127.0.0.1"}
PUBLIC = {"host": "0.0.0.0"}
HOSTS = PUBLIC | {"allowed_hosts": "Chat.example, *.other.example"}
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
        (PUBLIC, "http://evil.example:8765", "evil.example:8765", False),  # DNS rebinding
        (PUBLIC, "http://evil.example.:8765", "evil.example.:8765", False),
        (PUBLIC, "http://192.168.1.7:8765", "192.168.1.7:8765", True),
        (PUBLIC, "http://[fd00::7]:8765", "[fd00::7]:8765", True),
        (PUBLIC, "http://desk:8765", "desk:8765", True),
        (PUBLIC, "http://desk.local", "desk.local", True),
        (PUBLIC, "http://desk.local.evil.example", "desk.local.evil.example", False),
        (HOSTS, "https://chat.example", "chat.example", True),
        (HOSTS, "https://chat.example", "chat.example:443", True),
        (HOSTS, "https://CHAT.example", "chat.Example", True),
        (HOSTS, "http://chat.example:8765", "chat.example:8765", True),
        (HOSTS, "http://chat.example:8765", "chat.example:9000", False),
        (HOSTS, "https://a.b.other.example", "a.b.other.example", True),
        (HOSTS, "https://other.example", "other.example", False),
        (HOSTS, "http://desk:8765", "desk:8765", False),
        (PUBLIC | {"allowed_hosts": "*"}, "https://any.example", "any.example", True),
        (PUBLIC, "https://evil.example", "chat.example", False),
        (PUBLIC, "https://chat.example.evil.example", "chat.example", False),
        (TOKENS, "https://any.example", "127.0.0.1:8765", True),
        (TOKENS, "null", "127.0.0.1:8765", True),
        (TOKENS | {"origins": "https://ours.example"}, "https://ours.example", "x", True),
        (TOKENS | {"origins": "https://ours.example"}, "https://theirs.example", "x", False),
        (TOKENS | {"origins": "https://ours.example"}, None, "x", True),
        ({"origins": "*"}, "https://any.example", "x", True),
        ({"origins": "*"}, "null", "x", True),
        ({"origins": "null"}, "null", "x", True),
        ({"origins": "null"}, "https://any.example", "x", False),
        ({"origins": "https://*.app.example"}, "https://one.app.example", "x", True),
        ({"origins": "https://*.app.example"}, "https://a.b.APP.example", "x", True),
        ({"origins": "https://*.app.example"}, "https://app.example", "x", False),
        ({"origins": "https://*.app.example"}, "https://*.app.example", "x", False),
        ({"origins": "https://*.app.example"}, "https://.app.example", "x", False),
        ({"origins": "https://*.app.example"}, "https://evilapp.example", "x", False),
        ({"origins": "https://*.app.example"}, "https://one.app.example.evil.example", "x", False),
        ({"origins": "https://*.app.example"}, "https://evil.example/.app.example", "x", False),
        ({"origins": "https://*.app.example"}, "https://evil.example:1.app.example", "x", False),
        ({"origins": "https://*.app.example"}, "http://one.app.example", "x", False),
        ({"origins": "https://*.app.example"}, "https://one.app.example:8443", "x", False),
        ({"origins": "https://*.app.example:8443"}, "https://one.app.example:8443", "x", True),
        ({"origins": "http://localhost:*"}, "http://localhost:5173", "x", True),
        ({"origins": "http://localhost:*"}, "http://localhost", "x", True),
        ({"origins": "http://localhost:*"}, "http://localhost:5173.evil.example", "x", False),
        ({"origins": "http://localhost:*"}, "http://localhost.evil.example:80", "x", False),
        ({"origins": "http://[::1]:*"}, "http://[::1]:3000", "x", True),
        ({"origins": "https://app-*-team.host.example"}, "https://app-7f-team.host.example", "x", True),
        ({"origins": "https://app-*-team.host.example"}, "https://app-7.f-team.host.example", "x", False),
        ({"origins": "https://a.*.example"}, "https://a.b.example", "x", True),
        ({"origins": "https://a.*.example"}, "https://a.b.c.example", "x", False),
        ({"origins": "https://App.example:443/, http://b.example:80"}, "https://app.example", "x", True),
        ({"origins": "https://App.example:443/, http://b.example:80"}, "http://b.example", "x", True),
        ({"origins": "capacitor://localhost"}, "capacitor://localhost", "x", True),
        ({"origins": "https://b\u00fccher.example"}, "https://xn--bcher-kva.example", "x", True),
        ({"origins": "https://ours.example"}, "http://127.0.0.1:8765", "127.0.0.1:8765", False),
        ({}, "http://evil.example@127.0.0.1", "127.0.0.1:8765", False),
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


async def test_a_name_that_a_trusted_proxy_passes_on_is_this_host():
    names = {"Host": "chat.example", "Origin": "https://chat.example"}
    async with serving(host="0.0.0.0") as served:
        assert (await rejection(served, **names))[0] == 403
        async with await served.raw(handshake=True, **names, X_Forwarded_For="203.0.113.7") as client:
            assert await works(client)
        other = names | {"Origin": "https://other.example", "X_Forwarded_For": "203.0.113.7"}
        assert (await rejection(served, **other))[0] == 403
    async with serving(host="0.0.0.0", **NO_PROXIES) as served:
        assert (await rejection(served, **names, X_Forwarded_For="203.0.113.7"))[0] == 403


@pytest.mark.parametrize("path", ["/ws", "/", "/healthz", "/nothing"])
async def test_a_request_has_one_host(path: str):
    async with serving() as served:
        for hosts, version, status in (
            (b"", b"1.1", b"400"),
            (b"Host: a\r\nHost: a\r\n", b"1.1", b"400"),
            (b"Host: a\r\nX-Y: z\r\nHost: b\r\n", b"1.0", b"400"),
        ):
            async with await served.raw(handshake=False) as client:
                head = (
                    request(path)
                    .replace(b"Host: 127.0.0.1\r\n", hosts)
                    .replace(b"HTTP/1.1", b"HTTP/" + version)
                )
                client.write(head)
                assert (await client.reader.read()).split()[1] == status
        assert served.gateway.counts.rejected == {"400": 3}


async def test_a_probe_of_http_1_0_needs_no_host():
    async with serving() as served, await served.raw(handshake=False) as client:
        client.write(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert (await client.reader.read()).startswith(b"HTTP/1.1 200 ")


async def test_the_headers_of_a_plain_request_are_bounded_too():
    async with serving(max_headers=2000) as served, await served.raw(handshake=False) as client:
        client.write(request("/", **{f"X_{number}": "y" * 90 for number in range(30)}))
        assert (await client.reader.read()).startswith(b"HTTP/1.1 431 ")


async def test_a_rejected_origin_learns_which_setting_allows_it():
    async with serving() as served, bystander(served):
        for headers in (request(Origin="https://evil.example"), _PROBE):
            with capture_logs() as logs:
                async with await served.raw(handshake=False) as client:
                    client.write(headers)
                    response = await client.reader.read()
            assert response.startswith(b"HTTP/1.1 403 ")
            assert response.endswith(
                b"origin not allowed: add this page's origin to the server's setting origins "
                b"(null for a sandboxed frame)"
            )
            assert b"\r\nAccess-Control-Allow-Origin: *\r\n" in response
            if headers is not _PROBE:
                (line,) = logs
                assert (line["event"], line["setting"]) == ("origin_not_allowed", "origins")
                assert (line["origin"], line["log_level"]) == ("https://evil.example", "warning")


async def test_a_page_can_read_by_fetch_why_the_websocket_does_not_open():
    async with serving(origins="https://allowed.example") as served, bystander(served):
        async with await served.raw(handshake=False) as client:
            client.write(_PROBE.replace(b"evil", b"allowed"))
            response = await client.reader.read()
        assert response.startswith(b"HTTP/1.1 426 ")
        assert b"\r\nAccess-Control-Allow-Origin: *\r\n" in response
