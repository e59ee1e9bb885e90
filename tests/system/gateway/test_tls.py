"""TLS on the gateway's port: certificates and their reload, and limits during the TLS handshake."""

import asyncio
import contextlib
import gc
import socket
import ssl
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.frames import Opcode

from reactor.errors import SettingError
from reactor.gateway.connection import Connection
from reactor.gateway.server import Gateway
from reactor.gateway.tls import TlsLayer
from reactor.settings import Settings
from tests.support.certificates import trusting, write_certificate
from tests.support.gateway import (
    BELOW_DEFAULT,
    HEARTBEAT,
    Raw,
    Recorder,
    Served,
    client_frame,
    request,
    serving,
    text,
)
from tests.support.waiting import until


async def connect_tls(served: Served, context: ssl.SSLContext) -> Raw:
    return Raw(*await asyncio.open_connection("127.0.0.1", served.port, ssl=context))


async def test_websockets_and_http_work_over_tls(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with serving(tls_cert=cert, tls_key=key) as served:
        url = f"wss://127.0.0.1:{served.port}/ws"
        async with connect(url, ssl=trusting(cert), compression=None) as client:
            for _ in range(3):
                await client.send('{"type":"room:heartbeat"}')
                assert "ack" in str(await client.recv())
            big = "x" * 50_000
            await client.send(f'{{"type":"room:heartbeat","roomId":1,"more":"{big}"}}')
            await client.send('{"type":"room:heartbeat","id":9}')
            while '"id":9' not in str(await client.recv()):
                pass
        async with await connect_tls(served, trusting(cert)) as page:
            page.write(request("/healthz"))
            assert b"200 OK" in await page.reader.read()
        await served.handler.until(lambda: len(served.handler.closed_) == 1)


async def test_a_connection_that_is_closed_leaves_nothing_of_its_handshake(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with serving(tls_cert=cert, tls_key=key) as served:
        gc.collect()
        gc.disable()
        try:
            before = count_tls_objects()
            for _ in range(20):
                async with Raw(*await asyncio.open_connection("127.0.0.1", served.port)) as raw:
                    raw.write(b"\x16\x03\x01")
            await until(lambda: count_tls_objects() == before)
        finally:
            gc.enable()


def count_tls_objects() -> int:
    return sum(type(one) is TlsLayer and hasattr(one, "_tls") for one in gc.get_objects())


async def test_records_of_one_byte_are_passed_on_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls, receive = list[bytes](), Connection.data_received

    def count(self: Connection, data: bytes) -> None:
        calls.append(data)
        receive(self, data)

    monkeypatch.setattr(Connection, "data_received", count)
    cert, key = write_certificate(tmp_path, "one")
    async with (
        serving(tls_cert=cert, tls_key=key) as served,
        Raw(*await asyncio.open_connection("127.0.0.1", served.port)) as raw,
    ):
        tls, incoming, outgoing = await opened_tls(raw, trusting(cert))
        asked = request("/healthz").replace(b"\r\n\r\n", b"\r\nX-Long: " + b"x" * 2000 + b"\r\n\r\n")
        for byte in asked:
            tls.write(bytes([byte]))
        raw.write(outgoing.read())
        incoming.write(await raw.reader.read())
        answer = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while part := tls.read(65536):
                answer += part
        assert b"200 OK" in answer
        assert b"".join(calls) == asked
    assert len(calls) < len(asked) / 20


async def opened_tls(raw: Raw, context: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """Complete a handshake; return the client's side of TLS, what it is to read, and what it wrote."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            raw.write(outgoing.read())
            incoming.write(await raw.reader.read(65536))
        else:
            return tls, incoming, outgoing


async def opened_websocket(raw: Raw, cert: Path) -> tuple[ssl.SSLObject, ssl.MemoryBIO]:
    """Open a WebSocket over TLS; return the client's side of TLS, and what it wrote."""
    tls, incoming, outgoing = await opened_tls(raw, trusting(cert))
    tls.write(request())
    raw.write(outgoing.read())
    incoming.write(await raw.reader.read(65536))
    return tls, outgoing


async def test_a_client_whose_records_are_nearly_empty_is_cut_off(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with (
        serving(tls_cert=cert, tls_key=key, ping_interval=0) as served,
        Raw(*await asyncio.open_connection("127.0.0.1", served.port)) as raw,
    ):
        tls, outgoing = await opened_websocket(raw, cert)
        for byte in client_frame(Opcode.TEXT, b"x" * 10_000):
            tls.write(bytes([byte]))
        raw.write(outgoing.read())
        await served.handler.until(lambda: len(served.handler.closed_) == 1)


async def test_large_records_that_arrive_in_pieces_are_no_surplus(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with (
        serving(tls_cert=cert, tls_key=key, messages_per_second=0) as served,
        Raw(*await asyncio.open_connection("127.0.0.1", served.port)) as raw,
    ):
        tls, outgoing = await opened_websocket(raw, cert)
        for number in range(20):
            long = client_frame(Opcode.TEXT, b'{"type":"room:heartbeat","more":"' + b"x" * 16_000 + b'"}')
            tls.write(long)
            encrypted = outgoing.read()
            raw.write(encrypted[:-1])
            await asyncio.sleep(0)
            raw.write(encrypted[-1:])
            await served.handler.until(lambda: len(served.handler.intents) == number + 1)  # noqa: B023
        assert served.handler.closed_ == []


async def test_the_server_sends_close_notify(tmp_path: Path):
    """Without it a client cannot distinguish the end from a truncation (RFC 8446 section 6.1)."""
    cert, key = write_certificate(tmp_path, "one")

    def request_health(port: int) -> bytes:
        plain = socket.create_connection(("127.0.0.1", port))
        context = trusting(cert)
        with context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as secure:
            secure.sendall(request("/healthz"))
            received = b""
            while part := secure.recv(1000):  # raises SSLEOFError without a close_notify
                received += part
            return received

    async with serving(tls_cert=cert, tls_key=key) as served:
        assert (await asyncio.to_thread(request_health, served.port)).endswith(b"ok")


async def test_the_certificate_may_change_while_connections_are_open(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with serving(tls_cert=cert, tls_key=key) as served:
        old = trusting(cert)
        async with await connect_tls(served, old) as client:
            await client.shake_hands()
            write_certificate(tmp_path, "two")
            served.gateway.reload()
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect_tls(served, old)
            async with await connect_tls(served, trusting(cert)) as late:
                await late.shake_hands()
            key.write_text("nonsense")
            served.gateway.reload()
            async with await connect_tls(served, trusting(cert)) as late:
                await late.shake_hands()
            client.write(text(HEARTBEAT))
            assert (await client.message())["type"] == "room:heartbeat:ack"


async def test_a_slow_or_silent_tls_handshake_is_aborted_at_the_opening_time_out(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with serving(tls_cert=cert, tls_key=key, open_timeout=1.5) as served, AsyncExitStack() as stack:
        hello = client_hello()
        began = time.monotonic()
        silent = await stack.enter_async_context(await served.raw(handshake=False))
        slow = await stack.enter_async_context(await served.raw(handshake=False))
        secure = await stack.enter_async_context(await connect_tls(served, trusting(cert)))
        assert len(served.gateway._manager.pending) == 3  # type: ignore[union-attr]
        for byte in hello:
            if slow.reader.at_eof() or slow.writer.transport.is_closing():
                break
            slow.write(bytes((byte,)))
            await asyncio.sleep(0.01)
        for client in (silent, slow, secure):
            assert await client.ended()
        assert 1.5 <= time.monotonic() - began < BELOW_DEFAULT, "one time-out for TLS and the request"
        manager = served.gateway._manager
        assert manager is not None
        await manager.empty.wait()


async def test_data_that_is_not_tls_closes_the_connection(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with serving(tls_cert=cert, tls_key=key) as served:
        for data in (request(), b"\x16\x03\x01\xff\xff" + bytes(500), bytes(100), b"\x80" * 3000):
            async with await served.raw(handshake=False) as client:
                client.write(data)
                assert await client.ended()
        async with await served.raw(handshake=False) as client:
            client.write(client_hello()[:50])
        with pytest.raises(ssl.SSLError):
            await connect_tls(served, ssl.create_default_context())
        assert served.handler.opened_ == []
        manager = served.gateway._manager
        assert manager is not None
        await manager.empty.wait()
        async with await connect_tls(served, trusting(cert)) as client:
            await client.shake_hands()


async def test_the_proxy_protocol_before_tls_is_noticed(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with serving(tls_cert=cert, tls_key=key) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"PROXY TCP4 203.0.113.9 127.0.0.1 4000 443\r\n")
        await reader.read()  # an alert
        writer.close()
        (notice,) = served.gateway.notices
        assert notice.startswith("proxy sends the PROXY protocol: have the proxy 127.0.0.1")


async def test_old_tls_versions_are_rejected(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with serving(tls_cert=cert, tls_key=key) as served:
        context = trusting(cert)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect_tls(served, context)


async def test_a_stopping_server_does_not_wait_for_tls_handshakes(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with serving(tls_cert=cert, tls_key=key, close_timeout=0.3) as served:
        secure = await connect_tls(served, trusting(cert))
        await secure.shake_hands()
        silent = await served.raw(handshake=False)
        began = time.monotonic()
    assert time.monotonic() - began < BELOW_DEFAULT
    for client in (secure, silent):
        client.writer.transport.abort()


def client_hello() -> bytes:
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_an_invalid_certificate_is_an_error_at_the_start(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    (tmp_path / "other").mkdir()
    other, _ = write_certificate(tmp_path / "other", "two")
    (tmp_path / "encrypted").mkdir()
    encrypted = write_certificate(tmp_path / "encrypted", "three", b"password")
    (tmp_path / "empty").touch()
    for files, words in [
        ((tmp_path / "none", key), "tls_cert .*none cannot be read: No such file"),
        ((cert, tmp_path / "none"), "tls_key .*none cannot be read"),
        ((other, key), "KEY_VALUES_MISMATCH"),
        ((tmp_path / "empty", key), "are not a certificate and its key"),
        ((cert, cert), "are not a certificate and its key"),
        (encrypted, "is encrypted"),
    ]:
        with pytest.raises(SettingError, match=words) as caught:
            Gateway(Settings(tls_cert=files[0], tls_key=files[1]), Recorder())
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingError, match="tls_key is not"):
        Settings(tls_cert=cert)


async def test_connections_in_the_tls_handshake_count_towards_the_limit(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with (
        serving(tls_cert=cert, tls_key=key, max_per_address=5, trusted_proxies="none") as served,
        AsyncExitStack() as stack,
    ):
        for _ in range(40):
            await stack.enter_async_context(await served.raw(handshake=False))
        await until(lambda: served.gateway.counts.rejected["cut"] == 30)
        assert len(served.gateway._manager.pending) <= 10  # type: ignore[union-attr]
        plain = socket.create_connection(("127.0.0.1", served.port), source_address=("127.0.0.2", 0))
        context = trusting(cert)
        secure = await asyncio.get_running_loop().run_in_executor(
            None, lambda: context.wrap_socket(plain, server_hostname="127.0.0.1")
        )
        secure.close()


async def test_an_expired_certificate_is_warned_of_when_it_is_loaded(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one", days=60)
    async with serving(tls_cert=cert, tls_key=key) as served:
        certificate = served.gateway.certificate
        assert certificate is not None
        assert certificate.expires - time.time() == pytest.approx(60 * 86_400, abs=3600)
        for days in (-1, 3):
            write_certificate(tmp_path, "two", days=days)
            with capture_logs() as logs:
                served.gateway.reload()
            (line,) = (line for line in logs if line["event"] == "certificate_expires")
            assert line["expired"] is (days < 0)
            assert line["file"] == str(cert)
            assert certificate.expires - time.time() == pytest.approx(days * 86_400, abs=3600)


async def test_a_certificate_that_is_not_valid_yet_is_warned_of(tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one", days=60)
    async with serving(tls_cert=cert, tls_key=key) as served:
        write_certificate(tmp_path, "two", begins=1, days=60)
        with capture_logs() as logs:
            served.gateway.reload()
    (line,) = (line for line in logs if line["log_level"] == "warning")
    assert (line["event"], line["file"]) == ("certificate_not_valid_yet", str(cert))
