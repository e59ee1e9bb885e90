"""A running node trims the logs in Redis."""

import pytest

from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until


async def test_departures_beyond_their_age_are_removed(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.expiry.log_trimming.TRIM_INTERVAL", 0.2)
    async with served(redis_server, departures_age=1) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        await ann.ask("leave_room", "room:left", roomId="lobby")
        stream = f"{redis_state.prefix('lobby')}:departures"
        assert redis_server.control.xlen(stream) == 1
        await until(lambda: redis_server.control.xlen(stream) == 0)
        assert await node.departures.totals() == {"left": 1}
