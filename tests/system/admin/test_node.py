"""What is done to one server over its admin port, and to a user on all of them."""

from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from reactor.log import log_level, set_log_level
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.admin.serving import admin_served, ok


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    before = log_level()
    yield
    set_log_level(before)


async def test_a_drained_server_sends_its_clients_away_and_admits_none_until_it_resumes(
    bundled_server: Server,
) -> None:
    async with admin_served(bundled_server) as (node, admin), RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        state = await ok(admin, "/v1/node/drain", "PUT")
        assert (state["draining"], state["ready"]) == (True, False)
        assert state["status"].startswith("draining")
        assert await ann.closed() == 1012
        assert (await admin.get("/readyz")).status_code == 503
        with pytest.raises(InvalidStatus) as refused:
            async with RawClient.connect(node):
                pass
        assert refused.value.response.status_code == 503
        state = await ok(admin, "/v1/node/drain", "DELETE")
        assert (state["draining"], state["ready"], state["connections"]) == (False, True, 0)
        async with RawClient.connect(node) as again:
            assert (await again.join("lobby", "ann"))["resumed"]


async def test_the_log_level_is_set_for_one_server(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (_, admin):
        state = await ok(admin, "/v1/node/log-level", "PUT", json={"level": "debug"})
        assert state["logLevel"] == "debug" == log_level()


async def test_a_user_is_removed_from_every_room_on_every_node(redis_server: Server) -> None:
    async with (
        admin_served(redis_server) as (node, admin),
        served(redis_server) as other,
        RawClient.connect(node) as phone,
        RawClient.connect(other) as laptop,
        RawClient.connect(other) as bob,
    ):
        await phone.join("lobby", "ann")
        await laptop.join("lobby", "ann")
        await laptop.join("hall", "ann")
        await bob.join("lobby", "bob")
        answer = await ok(admin, "/v1/users/ann/disconnect", "POST", params={"message": "Good night."})
        assert answer == {"userId": "ann", "nodes": 2}
        for client in (phone, laptop):
            assert (await client.receive("room:force-leave"))["message"] == "Good night."
            assert await client.closed() == 4003
        assert await bob.receive_departure_of("ann") == "kicked"
        await until(lambda: not other.roster.connections_of("hall", "ann"))
        assert bob.open
