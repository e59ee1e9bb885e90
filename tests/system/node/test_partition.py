"""A partition: one node loses Redis and the others do not."""

from typing import Any

import pytest

from tests.support import redis_state
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until

SHORT: dict[str, Any] = {"lease": 0.8, "grace": 0.8}


@pytest.mark.parametrize("how", ["cut", "silent"])
async def test_members_of_a_node_cut_off_from_redis_leave_once_and_return_with_it(
    redis_server: Server, how: str
) -> None:
    async with Proxy.to(redis_server.port) as link:
        url = f"redis://127.0.0.1:{link.port}/0"
        async with (
            served(redis_server, **SHORT) as whole,
            served(redis_server, redis_url=url, **SHORT) as alone,
            RawClient.connect(whole) as watcher,
            RawClient.connect(alone) as ann,
        ):
            await watcher.join("lobby", "watcher")
            await ann.join("lobby", "ann", data=[1])
            link.refuse = how == "cut"
            if how == "cut":
                link.cut()
            else:
                link.withhold()
            await ann.receive("service:degraded")
            assert await watcher.receive_departure_of("ann") == "disconnected"
            assert ann.open
            assert not watcher.of("service:degraded")
            link.refuse = False
            link.release()
            await ann.receive("service:restored")
            await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
            await until(lambda: redis_state.members(redis_server, "lobby").keys() == {"ann", "watcher"})
            await watcher.until(lambda: len([m for d in watcher.of("room:diff") for m in d["joined"]]) == 2)
            back = watcher.of("room:diff")[-1]["joined"][0]
            assert (back["userId"], back["data"]) == ("ann", [1])
            assert departures(watcher.received) == [("ann", "disconnected")]
            assert not departures(ann.received)
