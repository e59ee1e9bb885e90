"""A departure that a node hears of when the user is in again, and the node's own socket with it."""

from msgspec.structs import replace

from reactor.presence.rows import LeftRow
from reactor.protocol.closing import LeaveReason
from tests.servers import Server
from tests.system import plain
from tests.system.running import RawClient, served


async def test_a_socket_put_out_for_an_earlier_joining_leaves_no_connection_in_the_present_one(
    redis_server: Server,
) -> None:
    """As after Redis was another: the node enters its sockets again before it sees what it has missed."""
    async with (
        served(redis_server) as here,
        served(redis_server) as late,
        RawClient.connect(here) as first,
        RawClient.connect(late) as second,
    ):
        await first.join("lobby", "ann")
        await second.join("lobby", "ann")
        member = late.feed.last_known("lobby", "ann")
        assert member is not None
        earlier = replace(member, joined_at=member.joined_at - 1)
        left = LeftRow("ann", LeaveReason.INACTIVITY_TIMEOUT, plain.now(redis_server), "")
        late.reconciler.on_left("lobby", left, earlier)
        await second.hear("room:force-leave")
        await first.until(lambda: first.of("room:diff")[-1]["updated"][0]["connections"] == 1)
        assert plain.members(redis_server, "lobby")["ann"].get("connections", "1") == "1"
