"""Starting, stopping, and running out of file descriptors."""

import asyncio
import os
import resource
import socket
import time
from contextlib import suppress

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from reactor.errors import AddressInUse, SettingError
from reactor.gateway.server import Gateway
from reactor.settings import Settings
from tests.support.addresses import LOOPBACK, has
from tests.support.gateway import BELOW_DEFAULT, HEARTBEAT, Recorder, client_frame, request, serving, text
from tests.support.waiting import PATIENCE


async def test_a_port_in_use_is_an_error_of_one_line_with_the_fix():
    async with serving() as served:
        with pytest.raises(AddressInUse, match=f"port {served.port} .* choose another --port"):
            await Gateway(Settings(port=served.port), Recorder()).start()


async def test_a_foreign_host_is_an_error_of_one_line():
    for host in ("192.0.2.1", "no.such.host.invalid"):
        with pytest.raises(SettingError, match="--host"):
            await Gateway(Settings(host=host, port=0), Recorder()).start()


async def test_start_accepts_a_bound_socket():
    for family, address in LOOPBACK.items():
        if not has(family):
            pytest.skip("no IPv6 here")
        with socket.socket(family) as sock:
            sock.bind((address, 0))
            gateway = Gateway(Settings(port=0), Recorder())
            await gateway.start([sock])
            assert gateway.port == sock.getsockname()[1]
            host = f"[{address}]" if family == socket.AF_INET6 else address
            async with connect(f"ws://{host}:{gateway.port}/ws"):
                pass
            await gateway.stop()


async def test_nagles_algorithm_is_disabled():
    async with serving() as served, await served.raw():
        sock = served.handler.opened_[0]._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_stop_closes_every_connection_with_its_code_and_notifies_the_handler():
    handler = Recorder()
    async with serving(handler) as served:
        sockets = [await connect(served.url) for _ in range(20)]
        await handler.until(lambda: len(handler.opened_) == 20)
        assert len(served.gateway.connections) == 20
        reading = [asyncio.ensure_future(socket.recv()) for socket in sockets]
        began = time.monotonic()
        await served.gateway.stop()
        assert time.monotonic() - began < BELOW_DEFAULT
        assert sorted(map(id, handler.closed_)) == sorted(map(id, handler.opened_))
        assert not served.gateway.connections
        for outcome in await asyncio.gather(*reading, return_exceptions=True):
            assert isinstance(outcome, ConnectionClosed)
            assert outcome.rcvd is not None
            assert outcome.rcvd.code == 1012
        with pytest.raises(ConnectionError):
            await served.raw()
        await served.gateway.stop()  # a second stop does nothing


async def test_stop_spreads_the_closes_over_time():
    handler = Recorder()
    async with serving(handler) as served:
        times = []

        async def client():
            async with connect(served.url) as websocket:
                with pytest.raises(ConnectionClosed):
                    await websocket.recv()
                times.append(time.monotonic())

        clients = [asyncio.create_task(client()) for _ in range(40)]
        await handler.until(lambda: len(handler.opened_) == 40)
        began = time.monotonic()
        await served.gateway.stop(code=1001, over_seconds=2.0)
        await asyncio.gather(*clients)
        times = sorted(moment - began for moment in times)
        assert times[20] > 0.5
        assert 1.4 < times[-1] < BELOW_DEFAULT
        assert times[-1] - times[9] > 0.5


async def test_stop_does_not_wait_for_clients_that_do_not_answer():
    async with serving(close_timeout=0.3) as served:
        clients = [await served.raw() for _ in range(3)]
        silent = await served.raw(handshake=False)
        slow = await served.raw(handshake=False)
        slow.write(request()[:20])
        try:
            began = time.monotonic()
            await served.gateway.stop()
            assert 0.25 < time.monotonic() - began < BELOW_DEFAULT
            assert len(served.handler.closed_) == 3
            assert await silent.ended()
            assert await slow.ended()
        finally:
            for client in (*clients, silent, slow):
                client.writer.transport.abort()


async def test_a_cancelled_stop_aborts_every_connection():
    async with serving(close_timeout=30) as served, await served.raw() as client:
        stopping = asyncio.create_task(served.gateway.stop())
        assert await client.close_code() == 1012  # the stop now waits for the client's answer
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert len(served.handler.closed_) == 1


async def test_messages_received_during_a_stop_are_ignored():
    async with serving() as served, await served.raw() as client:
        stopping = asyncio.create_task(served.gateway.stop())
        await asyncio.sleep(0)
        client.write(text(HEARTBEAT) * 3)
        assert await client.close_code() == 1012
        client.write(client_frame(Opcode.CLOSE, b"\x03\xf4"))
        client.writer.close()
        await stopping
        assert served.handler.intents == []


async def test_out_of_file_descriptors_open_connections_are_served_and_new_ones_once_there_are_descriptors():
    async with serving() as served:
        old = await served.raw()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The clients' sockets, created before the limit; each accepted connection needs another descriptor.
        socks = [socket.socket() for _ in range(40)]
        try:
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 4, hard))
            for sock in socks:
                sock.setblocking(False)
                with suppress(BlockingIOError):
                    sock.connect(("127.0.0.1", served.port))
            for _ in range(50):
                old.write(text(HEARTBEAT))
                assert (await old.message())["type"] == "room:heartbeat:ack"
                await asyncio.sleep(0.01)
            manager = served.gateway._manager
            assert manager is not None
            assert len(manager.pending) < 40
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for sock in socks:
                sock.close()
            new = await first_accepted(served)
            new.write(text(HEARTBEAT))
            assert (await new.message())["type"] == "room:heartbeat:ack"
            new.writer.transport.abort()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for sock in socks:
                sock.close()
            old.writer.transport.abort()


async def first_accepted(served):
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await served.raw()
            except (ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.05)
