"""What happens when the end of a membership crosses a request of the same connection.

The tests call the node's parts between two turns of the event loop, since no client can time it so closely.
"""

from typing import Any

import pytest

from reactor.gateway.connection import Connection
from reactor.presence.attachment import AttachmentEvent
from reactor.protocol.requests import LeaveRoom
from reactor.server.node import Node
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server


def submit_leave(node: Node, connection: Connection) -> None:
    """The connection's client leaves the lobby; the task that acts on it has not begun when this returns."""
    intent = connection.session.receive(LeaveRoom("lobby"))
    assert intent is not None
    node.handler.intent(connection, intent)


def kick_ann(node: Node, server: Server) -> None:
    node.reconciler.expel("lobby", "ann", "kicked", at=redis_state.now(server))


async def is_still_notified(client: RawClient, other: Node) -> None:
    """The client receives a join that another node makes."""
    async with RawClient.connect(other) as late:
        await late.join("lobby", "late")
        await client.until(
            lambda: (
                "late" in [member["userId"] for diff in client.of("room:diff") for member in diff["joined"]]
            )
        )


@pytest.mark.parametrize("crossing", ["kick", "close"])
async def test_a_leave_that_crosses_the_end_of_its_membership_leaves_the_room_followed_for_others(
    bundled_server: Server, crossing: str
) -> None:
    async with (
        served(bundled_server) as node,
        served(bundled_server) as other,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as ann,
    ):
        await bob.join("lobby", "bob")
        await ann.join("lobby", "ann")
        (connection,) = node.roster.connections_of("lobby", "ann")
        submit_leave(node, connection)
        if crossing == "kick":
            kick_ann(node, bundled_server)
            await ann.receive("room:left")
            assert not ann.of("room:force-leave")
        else:
            connection.abort()
            node.handler.closed(connection)
        await bob.until(lambda: departures(bob.received) == [("ann", "left")])
        await is_still_notified(bob, other)
        assert not redis_state.members(bundled_server, "lobby").keys() & {"ann"}


async def test_a_connection_that_is_leaving_is_not_expelled_with_the_others_of_its_user(
    bundled_server: Server,
) -> None:
    async with (
        served(bundled_server) as node,
        served(bundled_server) as other,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as leaving,
        RawClient.connect(node) as staying,
    ):
        await bob.join("lobby", "bob")
        await leaving.join("lobby", "ann")
        await staying.join("lobby", "ann")
        submit_leave(node, node.roster.connections_of("lobby", "ann")[0])
        kick_ann(node, bundled_server)
        await leaving.receive("room:left")
        assert not leaving.of("room:force-leave")
        assert (await staying.receive("room:force-leave"))["reason"] == "kicked"
        await is_still_notified(bob, other)


async def test_a_late_answer_to_an_update_does_not_bring_a_closed_connection_back(
    bundled_server: Server,
) -> None:
    async with (
        served(bundled_server, grace=0, diff_window=0) as node,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as ann,
    ):
        await bob.join("lobby", "bob")
        await ann.join("lobby", "ann")
        update = node.store.update

        async def answer_late(*args: Any, **fields: Any) -> Any:
            ann.vanish()
            await bob.until(lambda: departures(bob.received) == [("ann", "disconnected")])
            return await update(*args, **fields)

        node.store.update = answer_late  # type: ignore[method-assign]
        await ann.send("room:update", roomId="lobby", username="A")
        await bob.receive_departures(1)
        node.store.update = update  # type: ignore[method-assign]
        for _ in range(5):  # as many turns as a join would need
            await bob.ask("room:update", "room:updated", roomId="lobby", username="B")
        assert departures(bob.received) == [("ann", "disconnected")]
        assert redis_state.members(bundled_server, "lobby").keys() == {"bob"}


async def test_a_member_registered_again_after_it_was_found_to_have_departed_is_detached(
    bundled_server: Server,
) -> None:
    """As where Redis lost the departure with its data, between the question and the next registration."""
    async with (
        served(bundled_server, grace=0.3) as node,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as ann,
    ):
        await bob.join("lobby", "bob")
        await ann.join("lobby", "ann")
        (attachment,) = node.reconciler.attachments_of("lobby", "ann")
        attachment.advance(AttachmentEvent.FOUND_DEPARTED)
        await node.reconciler.reregister_all()
        kick_ann(node, bundled_server)
        await bob.until(lambda: departures(bob.received) == [("ann", "disconnected")])
        assert redis_state.members(bundled_server, "lobby").keys() == {"bob"}
