"""A client that returns by itself: it keeps what changed meanwhile, and stays out where it was removed."""

from typing import Any

import anyio

from reactor import Presence
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import Message, RawClient
from tests.support.servers import Server
from tests.support.signing import SECRET, token
from tests.support.waiting import until


def resume(joined: Message, **other: Any) -> dict[str, Any]:
    """What a client says that comes back after the connection with this reply to its join was lost."""
    return {name: joined[name] for name in ("epoch", "version", "joinedAt")} | other


async def test_a_return_keeps_what_another_device_changed_meanwhile(redis_server: Server) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        RawClient.connect(one) as laptop,
        RawClient.connect(two) as phone,
    ):
        before = await laptop.join("lobby", "ann", username="Ann", data={"v": 1})
        await phone.join("lobby", "ann")
        laptop.vanish()
        await phone.ask("room:update", "room:updated", roomId="lobby", username="Anna", data={"v": 2})
        async with RawClient.connect(one) as back:
            joined = await back.join("lobby", "ann", username="Ann", data={"v": 1}, resume=resume(before))
            (member,) = joined["members"]
            assert (member["username"], member["data"]) == ("Anna", {"v": 2})


async def test_a_return_brings_what_redis_has_lost(redis_server: Server) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        before = await ann.join("lobby", "ann", username="Ann", data={"v": 1})
        await ann.socket.close()
        redis_server.control.flushall()
        async with RawClient.connect(node) as back:
            joined = await back.join("lobby", "ann", username="Ann", data={"v": 1}, resume=resume(before))
            (member,) = joined["members"]
            assert (joined["resumed"], member["username"], member["data"]) == (False, "Ann", {"v": 1})


async def test_a_return_after_a_kick_is_answered_with_force_leave_and_does_not_join(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        Presence.open(redis_server.socket_url) as presence,
        RawClient.connect(one) as watcher,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as back,
    ):
        await watcher.join("lobby", "watcher")
        before = await ann.join("lobby", "ann")
        await watcher.receive("room:diff")
        ann.vanish()
        await until(lambda: redis_server.control.pttl(redis_state.presence_key("lobby", "ann")) <= 15_000)
        assert await presence.kick("lobby", "ann", "Enough.")
        assert await watcher.receive_departure_of("ann") == "kicked"
        at = int(redis_state.stream(redis_server, "lobby")[-1]["leftAt"])

        answer = await back.answer("join_room", roomId="lobby", userId="ann", resume=resume(before))
        assert (answer["type"], answer["roomId"], answer["timestamp"]) == ("room:force-leave", "lobby", at)
        assert (answer["message"], answer["reason"]) == ("Enough.", "kicked")
        assert (await back.answer("room:heartbeat", roomId="lobby"))["code"] == "not_joined"
        assert redis_state.members(redis_server, "lobby").keys() == {"watcher"}
        # The connection stays open, for another room, and for this one when the user decides to join.
        await back.join("attic", "ann", resume=resume(before))
        again = await back.join("lobby", "ann")
        assert again["resumed"] is False
        async with RawClient.connect(one) as later:
            assert (await later.join("lobby", "ann", resume=resume(again)))["resumed"] is True
            # The first device still has to learn of the kick, although the user is back on another.
            late = await later.answer("join_room", roomId="lobby", userId="ann", resume=resume(before))
            assert late["type"] == "room:joined", "in the room already, so there is nothing to resume"
        async with RawClient.connect(one) as first_device:
            late = await first_device.answer("join_room", roomId="lobby", userId="ann", resume=resume(before))
            assert (late["type"], late["reason"]) == ("room:force-leave", "kicked")
            assert first_device.open


async def test_a_return_after_the_expiry_learns_of_it(redis_server: Server) -> None:
    async with (
        served(redis_server, ttl=0.4, inactivity_message="Too long.") as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as back,
    ):
        before = await ann.join("lobby", "ann")
        await ann.receive("room:force-leave")
        answer = await back.answer("join_room", roomId="lobby", userId="ann", resume=resume(before))
        assert (answer["type"], answer["reason"]) == ("room:force-leave", "inactivity_timeout")
        assert answer["message"] == "Too long."


async def test_a_return_after_the_grace_or_a_leave_joins_anew(redis_server: Server) -> None:
    async with served(redis_server, grace=0.1) as node, RawClient.connect(node) as ann:
        before = await ann.join("lobby", "ann")
        ann.vanish()
        await until(lambda: len(redis_state.stream(redis_server, "lobby")) == 1)
        async with RawClient.connect(node) as back:
            joined = await back.join("lobby", "ann", resume=resume(before))
            assert joined["resumed"] is False
            await back.ask("leave_room", "room:left", roomId="lobby")
            assert (await back.join("lobby", "ann", resume=resume(joined)))["resumed"] is False


async def test_a_kick_that_crosses_the_return_is_never_undone(redis_server: Server) -> None:
    """Whichever comes first, the client is sent force-leave, and the member is gone in the end."""
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        Presence.open(redis_server.socket_url) as presence,
    ):
        for number in range(40):
            room_id = f"r{number}"
            async with RawClient.connect(one) as ann:
                before = await ann.join(room_id, "ann")
                ann.vanish()
            async with RawClient.connect(two) as back, anyio.create_task_group() as tasks:
                request = {"roomId": room_id, "userId": "ann", "resume": resume(before)}
                if number % 2:
                    await back.send("join_room", **request)
                tasks.start_soon(presence.kick, room_id, "ann", "Enough.")
                if not number % 2:
                    await back.send("join_room", **request)
                left = await back.has_received("room:force-leave")
                assert (left["message"], left["reason"]) == ("Enough.", "kicked")
            assert not await presence.is_present(room_id, "ann")


async def test_what_a_fresh_token_fixes_holds_for_a_return_too(bundled_server: Server) -> None:
    async with served(bundled_server, auth_secret=SECRET.encode()) as node:
        before: Message = {}
        for name in ("Ann", "Anna"):
            headers = {"Authorization": f"Bearer {token(sub='ann', rooms=['*'], name=name)}"}
            async with RawClient.connect(node, additional_headers=headers) as ann:
                more = {"resume": resume(before)} if before else {}
                before = await ann.join("lobby", "ann", data={"name": name}, **more)
        (member,) = before["members"]
        assert (member["username"], member["data"]) == ("Anna", {"name": "Ann"})


async def test_a_resume_that_cannot_be_read_is_refused_in_words(bundled_server: Server) -> None:
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        for resumed in (
            {},
            {"epoch": 1, "version": 1, "joinedAt": 1},
            {"epoch": "e", "version": -1, "joinedAt": 1},
            7,
        ):
            error = await ann.answer("join_room", roomId="lobby", userId="ann", resume=resumed)
            assert (error["code"], error["roomId"]) == ("bad_message", "lobby")
            assert '"resume" of join_room must be an object with epoch' in error["message"]
        await ann.join("lobby", "ann", resume=None)
