"""A member without heartbeats for its whole TTL expires."""

from contextlib import AsyncExitStack

import pytest

from reactor.expiry import pacemaker
from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server

SLACK = 5000
"""Milliseconds after its deadline within which an expiry has to happen, on a busy machine too.

Tests of punctuality switch off what would find it later: without a timely scan it would take a minute.
"""


@pytest.fixture
def only_timely_scans(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but a scan at its deadline expires a member, and nothing but the event claims it."""
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    monkeypatch.setattr(pacemaker, "MAX_SCAN_INTERVAL", 60.0)
    monkeypatch.setattr(pacemaker, "EVENT_TIMEOUT", 60.0)
    monkeypatch.setattr(pacemaker, "CLAIM_RETRY_MS", 60_000)


async def test_a_member_without_heartbeats_for_its_ttl_is_force_left_closed_and_shown_as_gone(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, ttl=1.0, inactivity_message="Gone quiet.") as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        joined = await bob.join("lobby", "bob")
        force_leave = await bob.receive("room:force-leave")
        assert force_leave.keys() == {"type", "roomId", "message", "reason", "timestamp"}
        assert (force_leave["roomId"], force_leave["message"]) == ("lobby", "Gone quiet.")
        assert force_leave["reason"] == "inactivity_timeout"
        deadline = joined["members"][1]["joinedAt"] + 1000
        assert deadline <= force_leave["timestamp"] < deadline + SLACK
        assert await bob.closed() == 4003
        assert await ann.receive_departure_of("bob") == "inactivity_timeout"
        assert not departures(bob.received)  # its own departure is sent as the force-leave alone
        assert (
            redis_server.control.exists(
                redis_state.presence_key("lobby", "bob"), redis_state.shadow_key("lobby", "bob")
            )
            == 0
        )
        assert ann.open
        assert set(redis_state.members(redis_server, "lobby")) == {"ann"}


async def test_every_connection_of_an_expired_member_is_force_left_on_every_node(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, ttl=1.0) as one,
        served(redis_server, ttl=1.0) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(one) as tab,
        RawClient.connect(one) as other_tab,
        RawClient.connect(two) as phone,
        RawClient.connect(two) as zoe,
    ):
        await ann.join("lobby", "ann")
        await zoe.join("lobby", "zoe")
        ann.start_heartbeats(), zoe.start_heartbeats()
        for client in (tab, other_tab, phone):
            await client.join("lobby", "bob")
        force_leaves = [await client.receive("room:force-leave") for client in (tab, other_tab, phone)]
        assert force_leaves[0] == force_leaves[1] == force_leaves[2]
        assert [await client.closed() for client in (tab, other_tab, phone)] == [4003, 4003, 4003]
        for client in (ann, zoe):
            assert await client.receive_departure_of("bob") == "inactivity_timeout"
            assert departures(client.received) == [("bob", "inactivity_timeout")]
        assert len(redis_state.stream(redis_server, "lobby")) == 1


async def test_a_connection_that_is_in_other_rooms_stays_open_for_them(redis_server: Server) -> None:
    rooms = (RoomRule(match="brief", ttl=0.5, message="Too long in brief."),)
    async with (
        served(redis_server, ttl=60, rooms=rooms) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await bob.join("lasting", "bob")
        await ann.join("brief", "ann")
        await ann.join("lasting", "ann")
        force_leave = await ann.receive("room:force-leave")
        assert (force_leave["roomId"], force_leave["message"]) == ("brief", "Too long in brief.")
        await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lasting")
        refused = await ann.ask("room:heartbeat", "error", roomId="brief")
        assert refused["code"] == "not_joined"
        await bob.ask("room:update", "room:updated", roomId="lasting", username="Bob")
        await ann.receive("room:diff", roomId="lasting")
        again = await ann.join("brief", "ann")
        assert again["resumed"] is False
        await ann.ask("leave_room", "room:left", roomId="lasting")
        assert (await ann.receive("room:force-leave"))["roomId"] == "brief"
        assert await ann.closed() == 4003  # now it was the last room


@pytest.mark.usefixtures("only_timely_scans")
async def test_of_many_members_every_one_expires_on_time(redis_server: Server) -> None:
    """Each in a room of its own, one deadline shortly after the other."""
    rooms = (RoomRule(match="lasting", ttl=600),)
    async with served(redis_server, ttl=1.0, rooms=rooms) as node, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient.connect(node)) for _ in range(4)]
        for client in clients:
            await client.join("lasting", "ann")  # its connection stays open until the last room has expired
        deadlines: dict[str, int] = {}
        for number in range(100):
            for index, client in enumerate(clients):
                room = f"{index}-{number}"
                joined = await client.join(room, "ann")
                deadlines[room] = joined["members"][0]["joinedAt"] + 1000
        for client in clients:
            await client.until(lambda client=client: len(client.of("room:force-leave")) == 100)  # type: ignore[misc]
        received = {m["roomId"]: m["timestamp"] for client in clients for m in client.of("room:force-leave")}
        assert received.keys() == deadlines.keys()
        late = sorted(received[room] - deadlines[room] for room in deadlines)
        assert late[0] > 0
        assert late[-1] < SLACK


@pytest.mark.usefixtures("only_timely_scans")
async def test_members_of_one_room_expire_each_at_their_own_deadline(redis_server: Server) -> None:
    """A deadline shortly after another one does not wait until that one is claimed."""
    async with served(redis_server, ttl=1.0, diff_window=0) as node, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient.connect(node)) for _ in range(12)]
        late = []
        for number, client in enumerate(clients):
            joined = await client.join("lobby", number)
            late.append(-joined["members"][-1]["joinedAt"] - 1000)
        for number, client in enumerate(clients):
            late[number] += (await client.receive("room:force-leave"))["timestamp"]
        assert min(late) > 0, late
        assert max(late) < SLACK, late
