"""A client that does not read is closed with bounded memory, and other clients are not affected."""

import asyncio
import socket
import tracemalloc
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from websockets.frames import Opcode

from reactor.gateway.connection import Connection
from reactor.gateway.fanout import broadcast
from reactor.gateway.framing import frame
from reactor.gateway.snapshots import MAX_CACHED, Snapshots
from reactor.protocol.messages import Member, MembersReply, ServiceDegraded
from reactor.protocol.room import RoomView
from tests.support.gateway import Raw, bystander, serving, text
from tests.support.waiting import PATIENCE, until


@asynccontextmanager
async def not_reading(served):
    """A client with a small receive window that does not read yet."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", served.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2048)
    client = Raw(reader, writer)
    await client.shake_hands()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        yield client
    finally:
        client.writer.transport.abort()


@pytest.mark.parametrize("method", ["send", "send_now", "send_payload", "send_frame"])
async def test_a_client_that_never_reads_is_closed_and_uses_no_more_memory_than_the_limit(method):
    message = ServiceDegraded("x" * 4000)
    async with serving(send_buffer=262_144, close_timeout=0.3) as served, bystander(served):
        async with not_reading(served):
            connection = served.handler.opened_[-1]
            payload = connection.codec.encode(message)
            tracemalloc.start()
            sent = 0
            while connection not in served.handler.closed_:
                for _ in range(100):
                    if method in ("send", "send_now"):
                        getattr(connection, method)(message)
                    elif method == "send_payload":
                        connection.send_payload(bytes(bytearray(payload)))
                    else:
                        connection.send_frame(frame(bytes(bytearray(payload))))
                    sent += 1
                await asyncio.sleep(0.001)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert sent > 1000
        assert peak < 1_500_000, peak


@pytest.mark.parametrize("method", ["send", "send_now"])
async def test_thousands_of_messages_in_one_turn_are_bounded(method):
    message = ServiceDegraded("x" * 4000)
    async with (
        serving(send_buffer=262_144, close_timeout=0.3) as served,
        bystander(served),
        not_reading(served),
    ):
        connection = served.handler.opened_[-1]
        tracemalloc.start()
        for _ in range(20_000):
            getattr(connection, method)(message)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_500_000, peak
        await served.handler.until(lambda: connection in served.handler.closed_)


async def test_once_the_transport_is_full_further_messages_wait_in_the_outbox():
    async with serving(send_buffer=1_000_000, close_timeout=0.3) as served, not_reading(served):
        connection = served.handler.opened_[-1]
        while not connection._outbox.blocked:
            connection.send(ServiceDegraded("x" * 40_000))
        connection.send(ServiceDegraded("x" * 40_000))
        size = connection._outbox.size
        assert size > 40_000
        connection.flush()
        await asyncio.sleep(0)
        assert connection._outbox.size == size


async def test_a_slow_client_that_resumes_reading_receives_the_close_reason():
    async with serving(send_buffer=65_536, close_timeout=5) as served, not_reading(served) as client:
        connection = served.handler.opened_[-1]
        while connection.state == 1:
            connection.send(ServiceDegraded("x" * 4000))
            await asyncio.sleep(0)
        client.writer.transport.resume_reading()
        assert await client.close_code() == 4008
        assert await client.frame() == (-1, b"")


async def test_a_client_that_reads_late_but_within_the_limit_receives_everything_in_order():
    async with serving(send_buffer=4_000_000) as served, not_reading(served) as client:
        connection = served.handler.opened_[-1]
        # The kernel buffers up to about 2.6 MB.
        for number in range(1500):
            connection.send(ServiceDegraded(f"{number} {'x' * 4000}"))
            if number % 50 == 0:
                await asyncio.sleep(0)
        assert connection._outbox.blocked
        client.writer.transport.resume_reading()
        for number in range(1500):
            assert (await client.message())["reason"].startswith(f"{number} ")
        assert not connection._outbox.blocked


async def test_a_message_above_the_limit_reaches_a_client_that_reads():
    async with serving(send_buffer=1024) as served, await served.raw() as client:
        connection = served.handler.opened_[-1]
        for _ in range(3):
            connection.send(ServiceDegraded("x" * 8_000_000))
            assert len((await client.message())["reason"]) == 8_000_000
            await until(lambda: not connection.blocked)
            connection.send(ServiceDegraded("second"))
            assert (await client.message())["reason"] == "second"


async def test_a_close_to_a_client_that_does_not_read_ends_at_the_close_time_out():
    async with (
        serving(send_buffer=4_000_000, close_timeout=0.3) as served,
        bystander(served),
        not_reading(served),
    ):
        connection = served.handler.opened_[-1]
        while not connection._outbox.blocked:
            connection.send(ServiceDegraded("x" * 40_000))
            await asyncio.sleep(0)
        connection.send(ServiceDegraded("x" * 40_000))
        connection.close(1012)
        await served.handler.until(lambda: connection in served.handler.closed_)


async def test_a_failing_connection_affects_no_other():
    async with serving(ping_interval=0.2) as served, bystander(served):
        clients = [await served.raw() for _ in range(3)]

        class Failing:
            def __init__(self, transport):
                self._transport = transport

            def __getattr__(self, name):
                return getattr(self._transport, name)

            def write(self, _data):
                raise RuntimeError("on purpose")

        failing = served.handler.opened_[-2]
        failing._transport = Failing(failing._transport)
        for connection in served.handler.opened_[-3:]:
            connection.send(ServiceDegraded("broadcast"))
        assert (await clients[0].message())["reason"] == (await clients[2].message())["reason"] == "broadcast"
        await served.handler.until(lambda: failing in served.handler.closed_)
        for client in clients:
            client.writer.transport.abort()


async def test_messages_of_one_turn_are_written_in_one_call():
    async with serving() as served, await served.raw() as client:
        connection = served.handler.opened_[-1]
        writes = []

        class Counting:
            def __init__(self, transport):
                self._transport = transport

            def __getattr__(self, name):
                return getattr(self._transport, name)

            def write(self, data):
                writes.append(data)
                self._transport.write(data)

            def writelines(self, parts):
                writes.append(b"".join(parts))
                self._transport.writelines(parts)

        connection._transport = Counting(connection._transport)
        for number in range(10):
            connection.send(ServiceDegraded(str(number)))
        assert writes == []
        assert [(await client.message())["reason"] for _ in range(10)] == [
            str(number) for number in range(10)
        ]
        assert len(writes) == 1
        connection.send(ServiceDegraded("alone"))
        assert (await client.frame())[0] == Opcode.TEXT
        assert len(writes) == 2


async def test_one_stalled_client_in_a_hundred_does_not_affect_the_fan_out_to_the_others():
    limit, messages = 262_144, 400
    async with serving(send_buffer=limit, close_timeout=0.3) as served, not_reading(served):
        stalled = served.handler.opened_[-1]
        # Otherwise the kernel would buffer megabytes first.
        stalled._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        async with AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(await served.raw()) for _ in range(99)]
            connections = [*served.handler.opened_]
            peak = 0
            for number in range(messages):
                broadcast(ServiceDegraded(f"{number:04d}" + "x" * 4000), connections)
                peak = max(peak, stalled._outbox.size)
                if number % 10 == 9:
                    # Every reader has received everything so far before more is sent.
                    async with asyncio.timeout(PATIENCE):
                        for reader in readers:
                            for expected in range(number - 9, number + 1):
                                assert f"{expected:04d}xxx".encode() in (await reader.frame())[1]
            await served.handler.until(lambda: stalled in served.handler.closed_)
            assert all(
                reader in served.gateway.connections for reader in connections if reader is not stalled
            )
            assert limit / 2 < peak <= limit


def keep_little_in_the_kernel(connection: Connection) -> None:
    """Otherwise it would buffer megabytes."""
    sock = connection._transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


def list_of(number: int, members: int = 700) -> RoomView:
    """A room whose list takes 2.8 MB."""
    view = RoomView("large")
    view.reset("e", 1, [Member(f"{number} {user}", "n", 1, 1, data="x" * 4000) for user in range(members)])
    return view


def send_list(snapshots: Snapshots, connection: Connection, view: RoomView) -> None:
    snapshots.send(connection, MembersReply("large", "e", 1, len(view.members)), view)


async def test_a_list_larger_than_the_limit_reaches_a_client_that_reads_late_and_what_follows_too():
    async with serving(send_buffer=65_536) as served, not_reading(served) as client:
        connection, view = served.handler.opened_[-1], list_of(0)
        keep_little_in_the_kernel(connection)
        send_list(Snapshots(), connection, view)
        connection.send(ServiceDegraded("behind it"))
        assert connection.blocked
        client.writer.transport.resume_reading()
        reply = await client.message()
        assert [one["userId"] for one in reply["members"]] == list(view.members)
        assert (await client.message())["reason"] == "behind it"


async def test_lists_that_wait_for_clients_that_do_not_read_take_little_memory():
    snapshots, number = Snapshots(), 8
    views = [list_of(one) for one in range(number)]
    async with serving() as served, bystander(served), AsyncExitStack() as stack:
        for _ in range(number):
            await stack.enter_async_context(not_reading(served))
            keep_little_in_the_kernel(served.handler.opened_[-1])
        tracemalloc.start()
        for connection, view in zip(served.handler.opened_[-number:], views, strict=True):
            send_list(snapshots, connection, view)
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert all(connection.blocked for connection in served.handler.opened_[-number:])
        assert kept < MAX_CACHED + number * 400_000, kept


async def test_a_client_that_reads_nothing_for_the_send_time_out_is_closed():
    async with (
        serving(send_timeout=0.3, ping_interval=0, close_timeout=0.2) as served,
        bystander(served),
        not_reading(served) as client,
    ):
        connection = served.handler.opened_[-1]
        keep_little_in_the_kernel(connection)
        send_list(Snapshots(), connection, list_of(0))
        assert connection.blocked
        for _ in range(3):  # it sends all the same
            client.write(text({"type": "room:heartbeat"}))
        await served.handler.until(lambda: connection in served.handler.closed_)
        assert served.gateway.counts.too_slow == 1


async def test_beyond_the_budget_of_the_node_the_connection_with_most_is_closed_first():
    async with (
        serving(send_buffers=1_000_000, close_timeout=0.2) as served,
        bystander(served),
        AsyncExitStack() as stack,
    ):
        for _ in range(3):
            await stack.enter_async_context(not_reading(served))
        connections = served.handler.opened_[-3:]
        for connection in connections:
            keep_little_in_the_kernel(connection)
            while not connection.blocked:
                connection.send(ServiceDegraded("x" * 40_000))
                await asyncio.sleep(0)
        small, large, third = connections
        for _ in range(10):
            large.send(ServiceDegraded("x" * 40_000))
        budget = large._context.send_budget
        while budget.used < 960_000:
            third.send(ServiceDegraded("x" * 4_000))
        third.send(ServiceDegraded("x" * 60_000))
        assert [connection.state == 1 for connection in connections].count(False) == 1
        assert small.state == 1
        assert budget.used < 1_000_000


async def test_a_blocked_connection_lags_until_all_that_waits_is_written():
    async with serving(send_buffer=400_000) as served, not_reading(served) as client:
        connection = served.handler.opened_[-1]
        keep_little_in_the_kernel(connection)
        while not connection.lags:
            connection.send(ServiceDegraded("x" * 20_000))
            await asyncio.sleep(0)
        assert connection.held < 400_000
        reading = asyncio.ensure_future(client.message())
        client.writer.transport.resume_reading()
        await reading

        async def read_on() -> None:
            while True:
                await client.message()

        reading = asyncio.ensure_future(read_on())
        await until(lambda: not connection.blocked and not connection.lags)
        reading.cancel()
