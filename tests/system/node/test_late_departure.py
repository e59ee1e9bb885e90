"""A departure that reaches a node after the user, with a connection of this node, has joined again."""

from typing import Any

from msgspec.structs import replace

from reactor.presence.rows import LeftRow
from reactor.protocol.reasons import INACTIVITY_TIMEOUT
from reactor.server.node import Node
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import Message, RawClient
from tests.support.servers import Server


def updates(socket: RawClient) -> list[Message]:
    return [member for diff in socket.of("room:diff") for member in diff["updated"]]


def notify_of_earlier_departure(node: Node, server: Server) -> None:
    """Notify the node, as a diff does, that ann's membership before the present one ended."""
    member = node.feed.last_known("lobby", "ann")
    assert member is not None
    left = LeftRow("ann", INACTIVITY_TIMEOUT, redis_state.now(server), "")
    node.reconciler.on_left("lobby", left, replace(member, joined_at=member.joined_at - 1))


async def test_a_connection_expelled_for_an_earlier_membership_is_detached_from_the_present_one(
    redis_server: Server,
) -> None:
    """As after a failover: the node registers its connections again before it receives what it missed."""
    async with (
        served(redis_server) as here,
        served(redis_server) as late,
        RawClient.connect(here) as first,
        RawClient.connect(late) as second,
    ):
        await first.join("lobby", "ann")
        await second.join("lobby", "ann")
        notify_of_earlier_departure(late, redis_server)
        await second.receive("room:force-leave")
        await first.until(lambda: 1 in [one["connections"] for one in updates(first)])
        assert redis_state.members(redis_server, "lobby")["ann"].get("connections", "1") == "1"


async def test_a_client_expelled_during_a_rejoin_joins_under_another_connection_id(
    redis_server: Server,
) -> None:
    """The detach for the former membership must not affect the present one."""
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as ann,
    ):
        await bob.join("lobby", "bob")
        await ann.join("lobby", "ann")
        (attachment,) = node.reconciler.attachments_of("lobby", "ann")
        register = node.reconciler.follow_and_register

        async def expelled_first(*args: Any, **named: Any) -> Any:
            node.reconciler.follow_and_register = register  # type: ignore[method-assign]
            notify_of_earlier_departure(node, redis_server)
            node.reconciler.detach_queue.add(attachment)
            return await register(*args, **named)

        node.reconciler.follow_and_register = expelled_first  # type: ignore[method-assign]
        joined = await ann.join("lobby", "ann")
        await node.reconciler.detach_queue.join()
        fields = redis_state.members(redis_server, "lobby")["ann"]
        assert fields["socketId"] == joined["socketId"]
        assert fields.get("connections", "1") == "1"
        life = redis_server.control.pttl(redis_state.presence_key("lobby", "ann"))
        assert life > node.settings.grace * 1000, "it is not in its grace"
        assert [left["userId"] for diff in bob.of("room:diff") for left in diff["left"]] == []
