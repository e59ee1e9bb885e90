"""`reactor serve --workers N`: several nodes on one port, watched by their parent."""

import os
import signal
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
from anyio import to_thread

from tests.support.addresses import LOOPBACK, has
from tests.support.command import reactor
from tests.support.nodes import NodeProcess
from tests.support.raw_client import RawClient
from tests.support.servers import Server, free_port
from tests.support.waiting import PATIENCE, until


def pids_by_node(server: Server) -> dict[str, int]:
    """The processes of the nodes that are registered."""
    registry: Any = server.control.hgetall("{reactor:fleet}:registry")
    return {node: int(about.rpartition(":")[2]) for node, about in registry.items()}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_workers_share_a_port_and_a_killed_one_is_replaced(bundled_server: Server) -> None:
    async with (
        NodeProcess.start(bundled_server, workers=3, lease="1s", grace="500ms") as command,
        AsyncExitStack() as stack,
    ):
        nodes = pids_by_node(bundled_server)
        assert len(nodes) == 3
        by_node: dict[str, list[RawClient]] = {}
        for number in range(12):
            client = await stack.enter_async_context(RawClient.connect(command))
            joined = await client.join("lobby", f"u{number}")
            by_node.setdefault(joined["socketId"].partition(".")[0], []).append(client)
        node, lost = max(by_node.items(), key=lambda item: len(item[1]))
        os.kill(nodes[node], signal.SIGKILL)
        watcher = next(clients for other, clients in by_node.items() if other != node)[0]
        left: dict[str, str] = {}
        while len(left) < len(lost):
            diff = await watcher.receive_next(lambda message: bool(message.get("left")))
            for one in diff["left"]:
                assert one["userId"] not in left
                left[one["userId"]] = one["reason"]
        assert set(left.values()) == {"disconnected"}
        await until(lambda: len(pids_by_node(bundled_server).keys() - {node}) == 3)
        async with RawClient.connect(command) as late:
            assert (await late.join("lobby", "late"))["count"] == 12 - len(lost) + 1


async def test_workers_end_with_their_parent(bundled_server: Server) -> None:
    async with NodeProcess.start(bundled_server, workers=2) as command:
        workers = list(pids_by_node(bundled_server).values())
        assert all(map(alive, workers))
        await command.kill()
        await until(lambda: not any(map(alive, workers)))


async def test_workers_stop_in_good_order(bundled_server: Server) -> None:
    async with NodeProcess.start(bundled_server, workers=2) as command, RawClient.connect(command) as ann:
        workers = list(pids_by_node(bundled_server).values())
        await ann.join("lobby", "ann")
        assert await command.stop() == 0
        assert await ann.closed() == 1012
        assert not any(map(alive, workers))
        assert pids_by_node(bundled_server) == {}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("host", ["localhost", "::"])
async def test_every_address_of_the_host_is_listened_on(
    bundled_server: Server, host: str, workers: int
) -> None:
    listed = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    families = LOOPBACK if host == "::" else {family for family, *_ in listed}
    async with NodeProcess.start(bundled_server, workers=workers, host=host) as command:
        for family in filter(has, families):
            with socket.socket(family) as sock:
                sock.settimeout(PATIENCE)
                sock.connect((LOOPBACK[family], command.port))


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_server_on_the_port_of_workers_is_refused(
    bundled_server: Server, workers: int
) -> None:
    async with NodeProcess.start(bundled_server, workers=2) as first:
        command = ("serve", "--redis-url", bundled_server.socket_url, "--port", str(first.port))
        second = await to_thread.run_sync(lambda: reactor(*command, "--workers", str(workers)))
        assert second.code == 1
        assert f"port {first.port} " in second.err.splitlines()[-1]
        assert "choose another --port" in second.err.splitlines()[-1]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 2)])
async def test_a_restart_with_another_number_of_workers_takes_the_port_at_once(
    bundled_server: Server, before: int, after: int
) -> None:
    port = free_port()
    async with (
        NodeProcess.start(bundled_server, workers=before, port=port) as command,
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(RawClient.connect(command)) for _ in range(4)]
        assert await command.stop() == 0  # its side closes first, so its connections stay in TIME_WAIT
        for client in clients:
            assert await client.closed() == 1012
    async with (
        NodeProcess.start(bundled_server, workers=after, port=port) as command,
        RawClient.connect(command) as ann,
    ):
        await ann.join("lobby", "ann")
