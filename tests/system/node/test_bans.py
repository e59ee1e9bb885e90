"""Bans: removed everywhere at once, and refused until the ban ends."""

import random
from contextlib import AsyncExitStack, suppress
from functools import partial
from itertools import product
from typing import Any

import anyio
import pytest
from msgspec import json, structs
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from reactor import Presence
from reactor.membership.paid_lists import PaidLists
from reactor.membership.recovery_state import RecoveryState
from reactor.presence.bans import Ban
from reactor.presence.keys import escape, fleet_prefix
from reactor.server.node import Node
from tests.support import redis_state
from tests.support.keyspace import SHARDS, shard_of, shard_prefix
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.raw_client import Message, RawClient
from tests.support.servers import Server
from tests.support.signing import SECRET, token
from tests.support.waiting import until

NAMESPACE = "reactor"


def resume(joined: Message) -> dict[str, Any]:
    return {name: joined[name] for name in ("epoch", "version", "joinedAt")}


async def test_a_ban_from_a_room_removes_the_user_there_alone_and_refuses_joins(redis_server: Server) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        Presence.open(redis_server.socket_url) as presence,
        RawClient.connect(one) as watcher,
        RawClient.connect(one) as laptop,
        RawClient.connect(two) as phone,
    ):
        await watcher.join("lobby", "watcher")
        before = await laptop.join("lobby", "ann")
        await phone.join("lobby", "ann")
        await phone.join("attic", "ann")
        ban = await presence.ban("ann", "lobby", for_="10m", message="Be kind.", by="moderator 7")
        assert (ban.user_id, ban.room_id, ban.message, ban.by) == ("ann", "lobby", "Be kind.", "moderator 7")
        assert ban.until - ban.at == 600_000
        for device in (laptop, phone):
            force_leave = await device.receive("room:force-leave")
            assert (force_leave["reason"], force_leave["message"]) == ("banned", "Be kind.")
            assert (force_leave["until"], force_leave["roomId"]) == (ban.until, "lobby")
        assert await laptop.closed() == 4003
        assert await watcher.receive_departure_of("ann") == "banned"

        refused = await phone.answer("join_room", roomId="lobby", userId="ann")
        assert (refused["type"], refused["code"], refused["roomId"]) == ("error", "banned", "lobby")
        assert (refused["message"], refused["until"]) == ("Be kind.", ban.until)
        assert 0 < refused["retryAfter"] <= 600_000
        returned = await phone.answer("join_room", roomId="lobby", userId="ann", resume=resume(before))
        assert (returned["type"], returned["reason"]) == ("room:force-leave", "banned")
        assert (returned["until"], returned["timestamp"]) == (ban.until, ban.at)
        assert (await phone.answer("room:heartbeat", roomId="attic"))["type"] == "room:heartbeat:ack"
        assert one.handler.refused_banned == 0
        assert two.handler.refused_banned == 2
        assert await presence.totals() == {"banned": 1}

        assert await presence.unban("ann", "lobby")
        assert not await presence.unban("ann", "lobby")
        await phone.join("lobby", "ann")


async def test_a_ban_everywhere_ends_every_membership_and_closes_every_socket(redis_server: Server) -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(served(redis_server, auth_secret=SECRET)) for _ in range(4)]
        presence = await stack.enter_async_context(Presence.open(redis_server.socket_url))
        sockets = []
        for number, node in enumerate(nodes):
            client = await stack.enter_async_context(RawClient.connect(node))
            await client.ask("auth", "auth:ok", token=token(sub="ann", rooms=["*"]))
            for room in (f"room {number}", f"other {number}"):
                await client.join(room, "ann")
            sockets.append(client)
        idle = await stack.enter_async_context(RawClient.connect(nodes[2]))
        await idle.ask("auth", "auth:ok", token=token(sub="ann", rooms=["*"]))
        bob = await stack.enter_async_context(RawClient.connect(nodes[0]))
        await bob.ask("auth", "auth:ok", token=token(sub="bob", rooms=["*"]))
        lost = await stack.enter_async_context(RawClient.connect(nodes[1]))
        await lost.ask("auth", "auth:ok", token=token(sub="ann", rooms=["*"]))
        await lost.join("left alone", "ann")
        lost.vanish()
        key = redis_state.presence_key("left alone", "ann")
        await until(lambda: redis_server.control.pttl(key) <= 15_000)

        # A sweep that finds the ban half made would repeat it, later than this test expects.
        await until(lambda: all(node.sweep.rounds for node in nodes))
        ban = await presence.ban("ann", for_=60)
        assert await presence.rooms() == [], "the member in its grace has departed, too"
        for client in sockets:
            assert await client.closed() == 4003
            reasons = {(one["reason"], one["until"]) for one in client.of("room:force-leave")}
            assert reasons == {("banned", ban.until)}
            assert len(client.of("room:force-leave")) == 2
        assert await idle.closed() == 4003
        (error,) = idle.of("error")
        assert (error["code"], error["until"]) == ("banned", ban.until)
        assert bob.open

        assert [one async for one in presence.bans()] == [ban]
        assert await presence.unban("ann")
        assert [one async for one in presence.bans()] == []
        await until(lambda: nodes[2].known_bans.find("ann") is None)
        again = await stack.enter_async_context(RawClient.connect(nodes[2]))
        await again.ask("auth", "auth:ok", token=token(sub="ann", rooms=["*"]))
        await again.join("room 1", "ann")
        assert not redis_server.control.keys("*:ban:*")


async def login(stack: AsyncExitStack, node: Node, user: str = "ann", **claims: Any) -> RawClient:
    client = await stack.enter_async_context(RawClient.connect(node))
    await client.ask("auth", "auth:ok", token=token(sub=user, rooms=["*"], people=["*"], **claims))
    return client


async def test_a_user_who_is_banned_everywhere_can_neither_stay_to_watch_nor_log_in(
    redis_server: Server,
) -> None:
    async with AsyncExitStack() as stack:
        presence = await stack.enter_async_context(Presence.open(redis_server.socket_url))
        await presence.ban("eve", for_=600)
        nodes = [await stack.enter_async_context(served(redis_server, auth_secret=SECRET)) for _ in range(2)]
        pages = [await login(stack, node) for node in nodes for _ in range(3)]
        for place, page in enumerate(pages):
            if place % 3 == 0:
                assert (await page.answer("room:watch", roomId="lobby"))["type"] == "room:watching"
            elif place % 3 == 1:
                assert (await page.answer("people:watch", userIds=["bob"]))["type"] == "people:state"
            else:  # a member that watches another room
                await page.join("attic", "ann")
                await page.answer("room:watch", roomIds=["lobby", "hall"], view="count")
        bob = await login(stack, nodes[0], "bob")
        await bob.answer("room:watch", roomId="lobby")

        ban = await presence.ban("ann", for_=600, message="Be kind.")
        for place, page in enumerate(pages):
            assert await page.closed() == 4003
            (error,) = page.of("error")
            assert (error["code"], error["message"], error["until"]) == ("banned", "Be kind.", ban.until)
            assert "id" not in error
            assert len(page.of("room:force-leave")) == (place % 3 == 2)
        assert [node.handler.observers.watched for node in nodes] == [1, 0]
        assert bob.open

        # A node that starts later knows it from the first client on.
        nodes.append(await stack.enter_async_context(served(redis_server, auth_secret=SECRET)))
        for node in nodes:
            async with RawClient.connect(node) as refused:
                error = await refused.answer("auth", token=token(sub="ann"))
                assert (error["code"], error["message"], error["until"]) == ("banned", "Be kind.", ban.until)
                assert 0 < error["retryAfter"] <= 600_000
                assert await refused.closed() == 4003
            bearer = {"Authorization": f"Bearer {token(sub='ann')}"}
            async with RawClient.connect(node, additional_headers=bearer) as refused:
                assert await refused.closed() == 4003
                assert refused.of("error")[0]["code"] == "banned"
            assert node.ban_check.logins == 2
            assert node.known_bans.find("eve") is not None
        assert await presence.unban("ann")
        for node in nodes:
            await until(partial(_is_not_banned, node, "ann"))
            await login(stack, node)


def _is_not_banned(node: Node, user: str) -> bool:
    return node.known_bans.find(user) is None


@pytest.mark.parametrize(("followed", "fields"), [(True, {}), (False, {}), (False, {"limit": 10})])
async def test_a_user_who_is_banned_while_a_list_is_prepared_is_not_sent_it(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch, followed: bool, fields: dict[str, int]
) -> None:
    async with (
        served(bundled_server) as node,
        Presence.open(bundled_server.socket_url) as presence,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("elsewhere", "ann")
        if followed:
            await bob.answer("room:watch", roomId="lobby")

        async def meanwhile(*_: Any) -> None:
            await presence.ban("ann", "lobby", for_=600)
            await until(lambda: node.known_bans.find("ann", "lobby"))

        for method in ("prepare", "prepare_members"):
            monkeypatch.setattr(PaidLists, method, meanwhile)
        assert (await ann.answer("room:members", roomId="lobby", **fields))["code"] == "banned"


@pytest.mark.parametrize("with_tokens", [True, False], ids=["tokens", "claimed"])
async def test_a_ban_from_a_room_ends_the_watches_and_questions_of_that_room_alone(
    bundled_server: Server, with_tokens: bool
) -> None:
    async with AsyncExitStack() as stack:
        options = {"auth_secret": SECRET} if with_tokens else {}
        one, two = [await stack.enter_async_context(served(bundled_server, **options)) for _ in range(2)]
        presence = await stack.enter_async_context(Presence.open(bundled_server.socket_url))

        async def connected(node: Node) -> RawClient:
            if with_tokens:
                return await login(stack, node)
            return await stack.enter_async_context(RawClient.connect(node))

        page, member = await connected(one), await connected(two)
        await page.join("elsewhere", "ann")
        await page.answer("room:watch", roomId="lobby")
        await page.answer("room:watch", roomIds=["attic", "hall"], view="count")
        await member.join("lobby", "ann")
        await member.join("attic", "ann")
        await member.answer("room:watch", roomId="lobby", view="count")

        ban = await presence.ban("ann", "lobby", for_=600, message="Be kind.")
        for client in (page, member):
            error = await client.receive("error")
            assert (error["code"], error["roomId"], error["until"]) == ("banned", "lobby", ban.until)
            assert (error["message"], "id" in error) == ("Be kind.", False)
        assert (await member.receive("room:force-leave"))["reason"] == "banned"
        assert (one.handler.observers.watched, two.handler.observers.watched) == (2, 0)
        assert "lobby" not in one.roster
        for kind, fields in (
            ("room:watch", {}),
            ("room:members", {}),
            ("room:count", {}),
            ("room:is_present", {"userId": "bob"}),
        ):
            refused = await page.answer(kind, roomId="lobby", **fields)
            assert (refused["type"], refused["code"], refused["until"]) == ("error", "banned", ban.until)
        several = await page.answer("room:watch", roomIds=["lobby", "attic", "yard"], view="count")
        assert [room["roomId"] for room in several["rooms"]] == ["attic", "yard"]
        sentence = {"code": "banned", "message": "Be kind.", "until": ban.until}
        assert several["refused"] == [{"roomId": "lobby", **sentence}]
        # Another room's count still comes.
        await member.ask("leave_room", "room:left", roomId="attic")
        await page.receive_next(
            lambda message: (
                message["type"] == "room:counts"
                and {"attic"} == {room["roomId"] for room in message["rooms"] if room["count"] == 0}
            )
        )
        assert await presence.unban("ann", "lobby")
        await until(lambda: one.known_bans.find("ann", "lobby") is None)
        assert (await page.answer("room:watch", roomId="lobby"))["type"] == "room:watching"


async def test_bans_that_a_node_missed_hold_there_once_it_hears_from_redis(redis_server: Server) -> None:
    async with Proxy.to(redis_server.port) as link, AsyncExitStack() as stack:
        url = f"redis://127.0.0.1:{link.port}/0"
        node = await stack.enter_async_context(
            served(redis_server, redis_url=url, auth_secret=SECRET, lease=0.8)
        )
        presence = await stack.enter_async_context(Presence.open(redis_server.socket_url))
        await presence.ban("cy", for_=600)
        await until(lambda: node.known_bans.find("cy") is not None)
        ann, bob = await login(stack, node, "ann"), await login(stack, node, "bob")
        await ann.answer("room:watch", roomId="lobby")
        await bob.answer("room:watch", roomId="lobby")
        link.refuse = True
        link.cut()
        await ann.receive("service:degraded")
        everywhere = await presence.ban("ann", for_=600)
        in_room = await presence.ban("bob", "lobby", for_=600)
        assert await presence.unban("cy")
        async with RawClient.connect(node) as refused:  # judged by what it knows
            assert (await refused.answer("auth", token=token(sub="cy")))["code"] == "banned"
        assert ann.open
        link.refuse = False
        assert await ann.closed() == 4003
        assert [error["until"] for error in ann.of("error")] == [everywhere.until]
        error = await bob.receive("error")
        assert (error["code"], error["roomId"], error["until"]) == ("banned", "lobby", in_room.until)
        await until(lambda: node.known_bans.find("cy") is None)
        await login(stack, node, "cy")


async def test_a_ban_that_flushall_removed_is_no_longer_held_against_anyone(redis_server: Server) -> None:
    """An operator who empties a server that goes on lifts the bans, too."""
    async with AsyncExitStack() as stack:
        options: dict[str, Any] = {"auth_secret": SECRET, "lease": 0.8}
        nodes = [await stack.enter_async_context(served(redis_server, **options)) for _ in range(2)]
        presence = await stack.enter_async_context(Presence.open(redis_server.socket_url))
        await presence.ban("ann", for_=600)
        await until(lambda: all(len(node.known_bans) for node in nodes))
        redis_server.control.flushall()
        for node in nodes:
            await until(partial(_is_not_banned, node, "ann"))
            await login(stack, node)
        await presence.ban("ann", for_=600)
        await until(lambda: all(len(node.known_bans) for node in nodes))


async def _bans(presence: Presence) -> set[tuple[str, str | None]]:
    return {(ban.user_id, ban.room_id) async for ban in presence.bans()}


@pytest.mark.parametrize("room", ["lobby", None])
async def test_bans_that_were_made_or_lifted_before_redis_went_back_are_again(
    redis_server: Server, room: str | None
) -> None:
    """As after a failover that lost the last writes: the nodes know what was published."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(served(redis_server, lease=0.8)) for _ in range(2)]
        presence = await stack.enter_async_context(Presence.open(redis_server.socket_url))
        ann = await stack.enter_async_context(RawClient.connect(nodes[0]))
        await ann.join("lobby", "ann")
        await presence.ban("bob", room, for_=600)
        await presence.ban("cy", room, for_=5)
        await presence.ban("eve", "attic", for_=600)
        redis_server.control.save()
        banned = await presence.ban("ann", room, for_=600, message="Be kind.", by="a moderator")
        await presence.ban("cy", room, for_=600)
        assert await presence.unban("bob", room)
        await presence.ban("dan", room, for_=600)
        assert await presence.unban("dan", room)
        assert (await ann.receive("room:force-leave"))["reason"] == "banned"
        lifted = ("dan", 0)
        for node in nodes:
            await until(
                lambda: lifted in {(ban.user_id, ban.until) for ban, _ in node.known_bans.recent_changes()}  # noqa: B023
            )
        redis_server.kill()
        redis_server.start()
        expected = {("ann", room), ("cy", room), ("eve", "attic")}
        run_id = str(redis_server.control.info("server")["run_id"])
        for node in nodes:
            await until(
                lambda: node.lease.run_id == run_id and node.recovery.state is RecoveryState.HEALTHY  # noqa: B023
            )
        assert await _bans(presence) == expected
        found = {ban.user_id: ban async for ban in presence.bans()}
        assert found["ann"] == banned
        assert found["cy"].until > banned.at + 500_000, "the longer one, which took the place of the first"
        for node in nodes:
            await until(lambda: node.known_bans.find("ann", "lobby") is not None)  # noqa: B023
            one = await stack.enter_async_context(RawClient.connect(node))
            assert (await one.answer("join_room", roomId="lobby", userId="ann"))["code"] == "banned"
        for node, user in zip(nodes, ("bob", "dan"), strict=True):
            one = await stack.enter_async_context(RawClient.connect(node))
            await one.join("lobby", user)
        assert set(redis_state.members(redis_server, "lobby")) == {"bob", "dan"}
        # A node that has missed that a ban was lifted restores nothing.
        await nodes[0].bans.unban("ann", room)
        await nodes[1].bans.repeat(banned, age=0)
        assert await _bans(presence) == expected - {("ann", room)}
        again = await presence.ban("ann", room, for_=600)
        await nodes[1].bans.repeat(structs.replace(banned, until=0), age=0)
        assert {ban.user_id: ban async for ban in presence.bans()}["ann"] == again, "it was made later"


@pytest.mark.parametrize("room", ["lobby", None])
async def test_what_a_moderator_does_after_a_failover_stays_also_where_the_new_clock_is_behind(
    redis_server: Server, room: str | None
) -> None:
    """The nodes come later, and repeat what the old server published, with times that are ahead."""
    prefix = fleet_prefix(NAMESPACE) if room is None else shard_prefix(NAMESPACE, shard_of(room))
    async with (
        Proxy.to(redis_server.port) as link,
        served(redis_server, redis_url=f"redis://127.0.0.1:{link.port}/0", lease=0.8) as node,
        Presence.open(redis_server.socket_url) as presence,
    ):
        ahead = redis_state.now(redis_server) + 20_000
        for user, until_ in (("bob", 0), ("cy", ahead + 600_000), ("dan", ahead + 600_000)):
            change = Ban(user_id=user, room_id=room, at=ahead, until=until_)
            redis_server.control.publish(f"{prefix}:wake", b"~" + json.encode(change))
        await until(lambda: len(node.known_bans.recent_changes()) == 3)
        link.refuse = True
        link.cut()
        redis_server.kill()
        redis_server.start()
        made = await presence.ban("bob", room, for_=600)
        await presence.unban("cy", room)
        shorter = await presence.ban("dan", room, for_=60)
        link.refuse = False
        run_id = str(redis_server.control.info("server")["run_id"])
        await until(lambda: node.lease.run_id == run_id and node.recovery.state is RecoveryState.HEALTHY)
        assert {ban.user_id: ban async for ban in presence.bans()} == {"bob": made, "dan": shorter}
        async with RawClient.connect(node) as client:
            assert (await client.answer("join_room", roomId="lobby", userId="bob"))["code"] == "banned"
            await client.join("lobby", "cy")


async def test_a_ban_while_a_watch_is_being_answered_wins(bundled_server: Server) -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(served(bundled_server, auth_secret=SECRET))
        presence = await stack.enter_async_context(Presence.open(bundled_server.socket_url))
        for attempt in range(30):
            page, room = await login(stack, node, f"user {attempt}"), f"room {attempt}"
            async with anyio.create_task_group() as tasks:
                everywhere = attempt % 2 == 0
                tasks.start_soon(
                    _ban, random.Random(attempt), presence, f"user {attempt}", None if everywhere else room
                )
                await page.send("room:watch", roomId=room)
            if everywhere:
                assert await page.closed() == 4003
            else:
                await page.has_received("error", code="banned")
                await page.barrier()
                await until(lambda: node.known_bans.find(f"user {attempt}", room) is not None)  # noqa: B023
            await until(lambda: room not in node.roster)  # noqa: B023
        await until(lambda: not node.handler.observers.watched)


async def test_a_banned_watch_that_waits_while_its_connection_closes_fails_in_silence(
    bundled_server: Server,
) -> None:
    with capture_logs() as log:
        async with (
            served(bundled_server, auth_secret=SECRET) as node,
            Presence.open(bundled_server.socket_url) as presence,
            AsyncExitStack() as stack,
        ):
            await presence.ban("ann", "lobby", for_=60)
            await until(lambda: node.known_bans.find("ann", "lobby") is not None)
            page = await login(stack, node)
            bundled_server.pause()
            try:
                # The second request waits for the first one, whose list Redis does not send.
                for room in ("hall", "lobby"):
                    await page.send("room:watch", roomId=room)
                await page.barrier()
                page.vanish()
                await until(lambda: not node.gateway.connections)
            finally:
                bundled_server.resume()
            await until(lambda: "hall" not in node.feed.rooms())
    assert "request_failed" not in {line["event"] for line in log}


async def test_a_ban_ends_by_itself(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        Presence.open(redis_server.socket_url) as presence,
        RawClient.connect(node) as ann,
    ):
        await presence.ban("ann", "lobby", for_=3)
        await presence.ban("ann", for_=3)
        wait = (await ann.answer("join_room", roomId="lobby", userId="ann"))["retryAfter"]
        await anyio.sleep(wait / 1000)
        await until(lambda: not redis_server.control.keys("*:ban:*"))
        await ann.join("lobby", "ann")
        assert [one async for one in presence.bans()] == []
        await node.sweep.sweep()
        assert not redis_server.control.keys("*:bans")


@pytest.mark.parametrize("everywhere", [True, False])
async def test_what_another_program_stores_in_place_of_a_ban_keeps_no_user_out(
    redis_server: Server, everywhere: bool
) -> None:
    key = f"{redis_state.prefix('lobby')}:ban:" + ("user:ann" if everywhere else "room:lobby:user:ann")
    control = redis_server.control
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        for value in ("mine", '"mine"', "{}", '{"until": "later"}', '{"until": 1}'):
            control.set(key, value)
            await ann.join("lobby", "ann")
            assert not control.exists(key)
            await ann.ask("leave_room", "room:left", roomId="lobby")
        await until(lambda: node.roster_audit.damaged["ban"] == 5)


async def test_a_ban_that_has_just_ended_and_is_still_there_is_not_taken_for_damage(
    redis_server: Server,
) -> None:
    """A script that begins before the end of a ban, and looks at it after that, still finds its key."""
    key, control = f"{redis_state.prefix('lobby')}:ban:user:ann", redis_server.control
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        seconds, micros = control.time()
        until_ms = seconds * 1000 + micros // 1000
        control.set(key, f'{{"userId": "ann", "until": {until_ms}}}', px=60_000)
        await ann.join("lobby", "ann")
        assert control.exists(key)
        assert node.roster_audit.damaged["ban"] == 0


async def test_a_join_in_flight_on_another_node_does_not_survive_a_ban(redis_server: Server) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        Presence.open(redis_server.socket_url) as presence,
    ):
        for attempt in range(60):
            user, rooms = f"user {attempt}", [f"room {attempt}.{number}" for number in range(4)]
            everywhere = chance.random() < 0.5
            async with RawClient.connect(one) as first, RawClient.connect(two) as second:
                async with anyio.create_task_group() as tasks:
                    steps: list[tuple[Any, ...]] = [
                        (_join, chance, chance.choice((first, second)), room, user) for room in rooms
                    ]
                    banned = [None] if everywhere else [rooms[0]]
                    steps += [(_ban, chance, presence, user, room) for room in banned]
                    chance.shuffle(steps)
                    for step in steps:
                        tasks.start_soon(*step)
                for room in rooms if everywhere else rooms[:1]:
                    assert not await presence.is_present(room, user), f"seed {seed}, attempt {attempt}"
                if not everywhere and _has_joined(rooms[1], first, second):
                    assert await presence.is_present(rooms[1], user), f"seed {seed}, attempt {attempt}"
                for entry in product((one, two), rooms if everywhere else rooms[:1], [user]):
                    await until(partial(_has_no_connection, *entry))


def _has_no_connection(node: Node, room: str, user: str) -> bool:
    return not node.roster.connections_of(room, user)


def _has_joined(room: str, *clients: RawClient) -> bool:
    # A ban that ends the only membership of a connection closes it, also before it sends its next join.
    return any(
        one["type"] == "room:joined" and one.get("id") == room for each in clients for one in each.received
    )


async def _join(chance: random.Random, client: RawClient, room: str, user: str) -> None:
    await anyio.sleep(chance.random() * 0.004)
    with suppress(ConnectionClosed):  # by the ban
        await client.send("join_room", roomId=room, userId=user, id=room)
        await until(lambda: not client.open or any(one.get("id") == room for one in client.received))


async def _ban(chance: random.Random, presence: Presence, user: str, room: str | None) -> None:
    await anyio.sleep(chance.random() * 0.004)
    await presence.ban(user, room, for_=600)


async def test_a_member_that_redis_lost_is_not_registered_again_while_it_is_banned(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as node,
        Presence.open(redis_server.socket_url) as presence,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await bob.join("lobby", "bob")
        await ann.join("lobby", "ann")
        redis_server.control.flushall()
        ban = await presence.ban("ann", "lobby", for_=600, message="Out.")
        bob.start_heartbeats()
        ann.start_heartbeats()
        force_leave = await ann.receive("room:force-leave")
        assert (force_leave["reason"], force_leave["until"]) == ("banned", ban.until)
        assert force_leave["message"] == "Out."
        assert await bob.receive_departure_of("ann") == "banned"
        assert await presence.totals() == {"banned": 1}
        assert [member.user_id for member in await presence.members("lobby")] == ["bob"]


async def test_a_ban_outlives_nodes_and_a_restart_of_redis(redis_server: Server) -> None:
    async with served(redis_server), Presence.open(redis_server.socket_url) as presence:
        ban = await presence.ban("ann", for_=600, message="Out.")
        redis_server.control.save()
    redis_server.kill()
    redis_server.start()
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        refused = await ann.answer("join_room", roomId="lobby", userId="ann")
        assert (refused["code"], refused["message"], refused["until"]) == ("banned", "Out.", ban.until)


async def test_the_sweep_restores_bans_that_were_evicted_and_completes_interrupted_ones(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as node,
        Presence.open(redis_server.socket_url) as presence,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        everywhere = await presence.ban("ann", for_=600, message="Out.")
        in_room = await presence.ban("bob", "lobby", for_=600)
        shard = shard_prefix(NAMESPACE, shard_of("lobby"))
        assert (
            redis_server.control.delete(f"{shard}:ban:user:ann", f"{shard}:ban:room:lobby:user:bob") == 2
        ), "as an eviction does"
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        await node.sweep.sweep()
        force_leave = await ann.receive("room:force-leave")
        assert (force_leave["reason"], force_leave["until"]) == ("banned", everywhere.until)
        assert force_leave["message"] == "Out."
        assert (await bob.receive("room:force-leave"))["until"] == in_room.until
        assert not await presence.count("lobby")
        assert [(one.user_id, one.until) async for one in presence.bans()] == [
            ("ann", everywhere.until),
            ("bob", in_room.until),
        ]
        # A ban that was lifted in part only is still listed, and comes back whole.
        redis_server.control.delete(*(f"{shard_prefix(NAMESPACE, n)}:ban:user:ann" for n in range(SHARDS)))
        await node.sweep.sweep()
        assert len(redis_server.control.keys("*:ban:user:ann")) == SHARDS + 1


async def test_a_sweep_that_lists_a_ban_before_it_is_lifted_removes_no_one_later(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        served(redis_server, sweep_interval=3600) as node,
        RawClient.connect(node) as ann,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await until(lambda: node.sweep.rounds)
        await presence.ban("ann", for_=600)
        run, listed, joined = node.backend.runner.run, anyio.Event(), anyio.Event()

        async def run_late(name: str, prefix: str, *args: Any) -> Any:
            reply = await run(name, prefix, *args)
            if name == "list_bans" and not listed.is_set():
                listed.set()
                await joined.wait()
            return reply

        monkeypatch.setattr(node.backend.runner, "run", run_late)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.bans.repair, redis_state.now(redis_server))
            await listed.wait()
            assert await presence.unban("ann")
            await ann.join("lobby", "ann")
            joined.set()
        assert set(redis_state.members(redis_server, "lobby")) == {"ann"}
        assert await presence.totals() == {}
        await presence.ban("ann", for_=600)
        assert (await ann.receive("room:force-leave"))["reason"] == "banned"


async def test_bans_are_listed_in_pages(redis_server: Server) -> None:
    async with Presence.open(redis_server.socket_url) as presence:
        made = [await presence.ban(f"us:er {n}", None, for_=600 + n) for n in range(5)]
        made += [await presence.ban(f"us:er {n}", f"room user:{n % 3}", for_=600 + n) for n in range(12)]
        found, at = await presence._bans.page(limit=3)
        assert found == made[:3]
        while at is not None:
            more, at = await presence._bans.page(at, 3)
            assert len(more) <= 3
            found += more
        key = lambda ban: (ban.room_id or "", ban.user_id)  # noqa: E731
        assert sorted(found, key=key) == sorted(made, key=key)


async def test_bans_that_end_at_the_same_time_are_listed_once_each(redis_server: Server) -> None:
    async with Presence.open(redis_server.socket_url) as presence:
        for number in range(7):
            await presence.ban(f"user {number}", for_=600)
        listed = f"{fleet_prefix(NAMESPACE)}:bans"
        end = redis_state.now(redis_server) + 500_000
        redis_server.control.zadd(listed, {f"user:{escape(f'user {number}')}": end for number in range(7)})
        found, at = await presence._bans.page(limit=2)
        while at is not None:
            more, at = await presence._bans.page(at, 2)
            found += more
        assert [ban.user_id for ban in found] == [f"user {number}" for number in range(7)]
