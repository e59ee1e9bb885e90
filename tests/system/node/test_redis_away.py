"""Redis is away, and comes back whole, empty or older."""

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from reactor.presence.heartbeats import MAX_WAITING
from tests.support import servers
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server


@pytest.fixture(params=servers.KINDS)
def saving_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server that `SAVE` has write a file, which it reads when it starts again."""
    binary, missing = servers.find(request.param)
    if binary is None:
        pytest.skip(missing)
    server = Server(request.param, binary, {"dir": str(tmp_path), "dbfilename": "dump.rdb"}).start()
    try:
        yield server
    finally:
        server.stop()


def leaves(client: RawClient) -> list[Any]:
    return [left for message in client.received if message["type"] == "room:diff" for left in message["left"]]


async def hear_all(client: RawClient) -> None:
    """Read what was sent to a client up to now."""
    await client.ask("room:is_present", "room:is_present", roomId="elsewhere", userId="nobody")


async def test_after_a_restart_without_data_every_member_is_present_and_no_leave_is_sent(
    redis_server: Server,
) -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(served(redis_server, lease=1.5)) for _ in range(2)]
        clients = []
        for i in range(10):
            client = await stack.enter_async_context(RawClient.connect(nodes[i % 2]))
            await client.join("lobby", f"u{i}", username=f"User {i}", data={"n": i})
            clients.append(client)
        redis_server.kill()
        for client in clients:
            await client.receive("service:degraded")
        await clients[0].send("room:heartbeat", roomId="lobby")
        redis_server.start()
        for client in clients:
            await client.receive("service:restored")
        members = (await clients[0].ask("room:members", "room:members", roomId="lobby"))["members"]
        assert sorted((m["userId"], m["username"], m["data"]["n"]) for m in members) == sorted(
            (f"u{i}", f"User {i}", i) for i in range(10)
        )
        for client in clients:
            await hear_all(client)
            assert leaves(client) == []
        if not any(message["type"] == "room:heartbeat:ack" for message in clients[0].received):
            await clients[0].receive("room:heartbeat:ack")


async def test_a_stall_longer_than_lease_grace_and_ttl_removes_no_member(redis_server: Server) -> None:
    async with (
        served(redis_server, lease=1.5, grace=1.0, ttl=2.5) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann", data=1)
        await bob.join("lobby", "bob")
        bob.vanish()
        redis_server.pause()
        await ann.send("room:heartbeat", roomId="lobby")
        await anyio.sleep(4.0)  # longer than the lease, the grace and the TTL
        redis_server.resume()
        async with RawClient.connect(node) as again:
            joined = await again.join("lobby", "bob")
            assert joined["resumed"]
            await ann.receive("room:heartbeat:ack")
            await again.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
            members = (await ann.ask("room:members", "room:members", roomId="lobby"))["members"]
            assert {m["userId"]: m.get("data") for m in members} == {"ann": 1, "bob": None}
            assert leaves(ann) == []


async def test_after_a_return_to_an_older_state_departures_and_joins_still_hold(
    saving_server: Server,
) -> None:
    async with (
        served(saving_server, lease=1.5, grace=60) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as cid,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        saving_server.control.save()
        await cid.join("lobby", "cid")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        await ann.receive("room:diff", left=[{"userId": "bob", "reason": "left"}])
        saving_server.kill()
        await ann.receive("service:degraded")
        saving_server.start()
        await ann.receive("service:restored")
        members = (await ann.ask("room:members", "room:members", roomId="lobby"))["members"]
        assert {m["userId"] for m in members} == {"ann", "cid"}
        assert [left["userId"] for left in leaves(ann)] == ["bob"]
        reasons = [json.loads(json.dumps(one.reason)) for one in await node.departures.read()]
        assert reasons == ["left"]


async def test_after_a_return_to_an_older_state_that_no_node_outlived_a_client_receives_a_list(
    saving_server: Server,
) -> None:
    """The room reaches the client's version, and its number of members, in another way."""
    async with (
        served(saving_server, grace=60) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as cid,
    ):
        first = await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        saving_server.control.save()
        await cid.join("lobby", "cid")
        last = await ann.receive("room:diff", count=3)
        saving_server.kill()
    saving_server.start()
    async with (
        served(saving_server, grace=60) as node,
        RawClient.connect(node) as dan,
        RawClient.connect(node) as again,
    ):
        joined = await dan.join("lobby", "dan")
        assert (joined["version"], joined["count"]) == (last["version"], last["count"])
        position = {"epoch": last["epoch"], "version": last["version"], "members": last["count"]}
        back = await again.join("lobby", "ann", resume={**position, "joinedAt": first["joinedAt"]})
        assert {one["userId"] for one in back.get("members", [])} == {"ann", "bob", "dan"}


async def test_of_many_heartbeats_in_an_outage_each_is_acknowledged(
    redis_server: Server,
) -> None:
    async with served(redis_server, messages_per_second=0) as node, RawClient.connect(node) as client:
        for room_id in "lobby", "attic":
            await client.join(room_id, "ann")
        redis_server.kill()
        await client.receive("service:degraded")
        for number in range(3 * MAX_WAITING):
            await client.send("room:heartbeat", id=f"all {number}")
        redis_server.start()
        await client.receive("service:restored")

        def answers(kind: str) -> int:
            return sum(
                one["type"] == kind and str(one.get("id")).startswith("all") for one in client.received
            )

        while answers("room:heartbeat:ack") < 3 * MAX_WAITING:
            await client.receive("room:heartbeat:ack")
        await hear_all(client)
        assert (answers("room:heartbeat:ack"), answers("error")) == (3 * MAX_WAITING, 0)
