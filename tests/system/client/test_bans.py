"""What an application of the Python client learns of a ban."""

import pytest

from reactor import Presence
from reactor.client.status import Status
from reactor.errors import ConnectionClosed, ForceLeave, Refused
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.signing import SECRET, token
from tests.support.waiting import until
from tests.system.client.clients import client_of


async def test_a_ban_ends_the_room_and_refuses_a_join(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Presence.open(bundled_server.socket_url) as presence,
        client_of(node) as ann,
    ):
        room = await ann.join("lobby", user_id="ann")
        await ann.join("attic", user_id="ann")
        ban = await presence.ban("ann", "lobby", for_=600, message="Be kind.")
        error = await room.ended()
        assert isinstance(error, ForceLeave)
        assert (error.reason, error.message, error.until) == ("banned", "Be kind.", ban.until)
        with pytest.raises(Refused) as refused:
            await ann.join("lobby", user_id="ann")
        assert (refused.value.code, refused.value.until) == ("banned", ban.until)
        assert await ann.count("attic") == 1


async def test_a_client_that_was_offline_learns_of_the_ban_and_does_not_join_again(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        Presence.open(bundled_server.socket_url) as presence,
        client_of(proxy.port) as ann,
    ):
        room = await ann.join("lobby", user_id="ann")
        proxy.withhold()
        ban = await presence.ban("ann", for_=600)
        proxy.cut()
        proxy.release()
        error = await room.ended()
        assert isinstance(error, ForceLeave)
        assert (error.reason, error.until) == ("banned", ban.until)
        assert node.handler.refused_banned <= 1
        assert not await presence.count("lobby")


async def test_a_ban_from_a_room_ends_its_watch_alone(bundled_server: Server):
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        Presence.open(bundled_server.socket_url) as presence,
        client_of(node, token=token(rooms=["*"])) as ann,
        await ann.watch("lobby") as lobby,
        await ann.watch("attic", view="count") as attic,
    ):
        ban = await presence.ban("ann", "lobby", for_=600, message="Be kind.")
        error = await lobby.ended()
        assert isinstance(error, Refused)
        assert (error.code, error.until, str(error)) == ("banned", ban.until, "Be kind.")
        with pytest.raises(Refused) as refused:
            await ann.watch("lobby")
        assert (refused.value.code, refused.value.until) == ("banned", ban.until)
        assert attic.status == Status.CONNECTED
        await ann.join("attic")
        await until(lambda: attic.count == 1)
        assert await presence.unban("ann", "lobby")
        await until(lambda: node.known_bans.find("ann", "lobby") is None)
        await ann.watch("lobby")


@pytest.mark.parametrize("member", [True, False])
async def test_a_user_who_is_banned_everywhere_learns_of_it_once_and_does_not_return(
    bundled_server: Server, member: bool
):
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        Presence.open(bundled_server.socket_url) as presence,
        client_of(node, token=token(rooms=["*"], people=["*"])) as ann,
        await ann.watch("lobby") as lobby,
        await ann.people(["bob"]) as people,
    ):
        room = await ann.join("attic") if member else None
        ban = await presence.ban("ann", for_=600, message="Be kind.")
        for watched in (lobby, people):
            error = await watched.ended()
            assert isinstance(error, ConnectionClosed)
            assert (error.code, error.until, str(error)) == (4003, ban.until, "Be kind.")
        if room is not None:
            assert isinstance(await room.ended(), ForceLeave)
        assert ann.status == Status.CLOSED
        assert node.ban_check.logins == 0
        with pytest.raises(ConnectionClosed) as closed:
            await ann.join("attic")
        assert closed.value.until == ban.until
        with pytest.raises(Refused) as refused:
            await client_of(node, token=token()).__aenter__()
        assert (refused.value.code, refused.value.until) == ("banned", ban.until)


async def test_a_client_that_was_offline_while_its_user_was_banned_everywhere_stops(bundled_server: Server):
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        Proxy.to(node.gateway.port) as proxy,
        Presence.open(bundled_server.socket_url) as presence,
        client_of(proxy.port, token=lambda: token(rooms=["*"])) as ann,
        await ann.watch("lobby") as lobby,
    ):
        proxy.withhold()
        ban = await presence.ban("ann", for_=600)
        proxy.cut()
        proxy.release()
        error = await lobby.ended()
        assert isinstance(error, ConnectionClosed)
        assert (error.code, error.until) == (4003, ban.until)
        assert node.ban_check.logins <= 1
