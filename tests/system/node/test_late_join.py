"""A join that a stalled network delivers after its sender has given up."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from reactor.backend.single import SingleBackend
from reactor.protocol.reasons import KICKED
from reactor.server.node import Node
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

QUIET: dict[str, Any] = {"pacemaker": False, "sweep_interval": 0, "lease": 60}
"""Settings of a node that runs few scripts by itself."""


@asynccontextmanager
async def two_nodes(server: Server) -> AsyncIterator[tuple[Proxy, Node, Node]]:
    """Two nodes, and the link to Redis of the second one."""
    async with (
        Proxy.to(server.port) as link,
        served(server) as whole,
        served(server, redis_url=f"redis://127.0.0.1:{link.port}/0", **QUIET) as stalled,
    ):
        yield link, whole, stalled


def a_connection_is_fenced(server: Server) -> bool:
    """Whether that is so; meanwhile the node may be judged lost, and then it is fenced by name."""
    return any("." in name for name in redis_state.fences(server))


def stall_with_next_join(link: Proxy, node: Node) -> None:
    """Stall the link as the node sends its next join.

    Batches are sent one after another, so no other one is under way then. A batch that the stall holds up
    before the join would delay it, and the join would then be sent over a new connection.
    """
    backend = node.backend
    assert isinstance(backend, SingleBackend)
    scripts = backend._scripts
    pipeline, digest = scripts._lane_of["join"]._pipeline, scripts._scripts["join"].digest.encode()
    exchange = pipeline.exchange

    async def stall_at_join(packed: Callable[[str], Sequence[bytes]]) -> list[Any]:
        if any(digest in command for command in packed("run")):
            pipeline.exchange = exchange  # type: ignore[method-assign]
            link.stall()
        return await exchange(packed)

    pipeline.exchange = stall_at_join  # type: ignore[method-assign]


async def test_a_join_that_arrives_late_leaves_no_connection_behind(redis_server: Server) -> None:
    """Its client received `unavailable` and left; the user is present over another connection."""
    async with (
        two_nodes(redis_server) as (link, whole, stalled),
        RawClient.connect(whole) as first,
        RawClient.connect(stalled) as other,
        RawClient.connect(stalled) as second,
    ):
        await other.join("lobby", "other")  # the room is followed from here on: the join is all that is sent
        await first.join("lobby", "ann")
        stall_with_next_join(link, stalled)
        await second.send("join_room", roomId="lobby", userId="ann")
        refusal = await second.receive("error")
        assert refusal["code"] == "unavailable"
        await until(lambda: a_connection_is_fenced(redis_server))
        link.release()
        await first.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        assert redis_state.members(redis_server, "lobby")["ann"].get("connections", "1") == "1"


async def test_an_expelled_member_is_not_registered_again_by_a_late_join(redis_server: Server) -> None:
    """Redis had lost the member, and its node was registering it again when it was expelled."""
    async with (
        two_nodes(redis_server) as (link, whole, stalled),
        RawClient.connect(whole) as other,
        RawClient.connect(stalled) as ann,
    ):
        await other.join("lobby", "other")
        await ann.join("lobby", "ann")
        (attachment,) = stalled.reconciler.attachments_of("lobby", "ann")
        stall_with_next_join(link, stalled)
        stalled.feed.view = lambda _room_id: None  # type: ignore[method-assign, assignment] # any epoch will do
        stalled.reconciler.reregister(attachment)
        await until(lambda: attachment.unanswered == 1)
        stalled.reconciler.expel("lobby", "ann", KICKED, at=redis_state.now(redis_server))
        await whole.store.kick(attachment.entry)
        await until(lambda: a_connection_is_fenced(redis_server))
        link.release()
        await until(lambda: stalled.backend.healthy)
        await stalled.store.count("lobby")
        assert redis_state.members(redis_server, "lobby").keys() == {"other"}
