"""The node's views of rooms: made from lists, advanced by diffs, and passed on without gaps."""

from typing import Any

import anyio
import pytest

from reactor.errors import Unavailable
from reactor.presence import lingering
from reactor.protocol.room import RoomView
from tests.redis.presence.following import CHANNEL, following
from tests.support.servers import Server
from tests.support.waiting import until


async def test_a_view_starts_with_a_list_and_is_advanced_by_diffs(redis_server: Server) -> None:
    async with following(redis_server, follow=False) as it:
        it.probe.join("ann")
        view = await it.follow()
        assert set(view.members) == {"ann"}
        it.probe.join("bob", username="B")
        it.probe.ask("update", "ann", "A", '{"n":1}', "", 0)
        it.probe.ask("kick", "bob", "")
        await it.agrees()
        assert view.members["ann"].username == "A"
        assert view.members["ann"].data == {"n": 1}
        assert [(diff.from_, diff.version) for diff in it.diffs] == [(1, 2), (2, 3), (3, 4)]
        assert it.left == [("bob", "kicked", "B")]
        assert it.feed.resyncs.total() == 0


async def test_an_empty_room_is_followed_from_its_first_member_on(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        assert it.feed.resyncs.total() == 0


async def test_a_room_is_followed_from_the_first_follow_to_the_last_unfollow(redis_server: Server) -> None:
    async with following(redis_server) as it:
        await it.feed.follow("lobby")
        await it.feed.follow("hall")
        assert set(it.feed.rooms()) == {"lobby", "hall"}
        it.feed.unfollow("lobby")
        it.probe.join("ann")
        await it.agrees()
        it.feed.unfollow("lobby")
        assert it.feed.view("lobby") is None
        await until(lambda: redis_server.control.pubsub_numsub(CHANNEL) == [(CHANNEL, 0)])
        it.feed.unfollow("lobby")  # once too often has no effect
        it.probe.join("bob")
        view = await it.follow()
        assert set(view.members) == {"ann", "bob"}


async def test_a_room_is_followed_on_for_a_while_after_the_last_unfollow(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(redis_server, follow=False, recent_diffs=1 << 20) as it:
        it.probe.join("ann")
        view = await it.follow()
        it.feed.unfollow("lobby")
        it.feed.unfollow("lobby")  # once too often has no effect
        it.probe.join("bob")
        await it.agrees()
        assert await it.feed.follow("lobby") is view
        monkeypatch.setattr(lingering, "LINGER", 0.2)
        it.feed.unfollow("lobby")
        await until(lambda: redis_server.control.pubsub_numsub(CHANNEL) == [(CHANNEL, 0)])
        assert set(it.feed.rooms()) == set()
        assert it.feed.recent.bytes == 0


async def test_a_room_that_becomes_empty_much_larger_or_uncertain_is_not_followed_on(
    redis_server: Server,
) -> None:
    async with following(redis_server, follow=False, recent_diffs=1 << 20) as it:

        async def lingers() -> None:
            await it.follow()
            it.feed.unfollow("lobby")
            assert it.feed.view("lobby") is not None

        def ended() -> bool:
            return it.feed.view("lobby") is None

        await it.feed.follow("lobby")
        it.feed.unfollow("lobby")
        assert ended(), "an empty room"
        it.probe.join("ann")
        await lingers()
        it.probe.ask("kick", "ann", "")
        await until(ended)
        it.probe.join("ann")
        await lingers()
        for user in ("bob", "cy"):
            it.probe.join(user)
        await until(ended)
        await lingers()
        it.feed.pause()
        assert ended()
        it.feed.resume()
        await lingers()
        it.feed.on_message(CHANNEL.encode(), b"not a diff")
        assert ended()
        assert it.feed.resyncs.total() == 0


async def test_the_rooms_that_are_followed_on_take_a_quarter_of_the_bound(redis_server: Server) -> None:
    async with following(redis_server, follow=False, recent_diffs=8 * 1024) as it:
        rooms = ["lobby", "hall", "attic"]
        for room_id in rooms:
            it.probe.join("ann", room=room_id)
            await it.feed.follow(room_id)
        for room_id in rooms:
            it.feed.unfollow(room_id)
        assert set(it.feed.rooms()) == {"lobby", "hall"}
        await it.feed.follow("lobby")
        await it.feed.follow("attic")
        it.feed.unfollow("attic")
        assert set(it.feed.rooms()) == set(rooms)


async def test_concurrent_followers_share_one_list(redis_server: Server) -> None:
    async with following(redis_server, follow=False) as it:
        it.probe.join("ann")
        it.probe.client.config_resetstat()
        views: list[RoomView] = []

        async def follow() -> None:
            views.append(await it.feed.follow("lobby"))

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(follow)
        assert len(views) == 50
        assert all(view is views[0] for view in views)
        calls: Any = it.probe.client.info("commandstats")
        assert calls["cmdstat_zscan"]["calls"] == 1


async def test_a_room_can_be_followed_again_right_after_a_cancelled_follow(redis_server: Server) -> None:
    async with following(redis_server, follow=False) as it:
        for _ in range(20):
            with anyio.move_on_after(0):
                await it.feed.follow("lobby")
            assert set(it.feed.rooms()) == set()
        await it.follow()
        it.probe.join("ann")
        await it.agrees()


async def test_a_diff_from_a_reply_is_applied_and_its_publication_ignored(
    redis_server: Server,
) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.diffs.clear()
        it.publications_to_drop = 99
        *_, diff = it.probe.join("bob")
        it.feed.offer("lobby", diff)
        assert set(it.view.members) == {"ann", "bob"}
        it.feed.offer("lobby", diff)
        it.feed.on_message(CHANNEL.encode(), diff)
        it.feed.offer("lobby", b"")
        it.feed.offer("hall", diff)
        assert [(diff.from_, diff.version) for diff in it.diffs] == [(1, 2)]
        assert it.feed.resyncs.total() == 0


async def test_a_diff_from_a_reply_that_does_not_continue_the_view_waits_for_its_publication(
    redis_server: Server,
) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.publications_to_drop = 2
        it.probe.join("bob")
        *_, diff = it.probe.join("cy")
        await until(lambda: len(it.kept) == 2)
        it.feed.offer("lobby", diff)
        assert set(it.view.members) == {"ann"}
        for payload in it.kept:
            it.feed.on_message(CHANNEL.encode(), payload)
        assert set(it.view.members) == {"ann", "bob", "cy"}
        assert it.feed.resyncs.total() == 0


async def test_waiting_for_a_version_returns_the_view_that_has_it(redis_server: Server) -> None:
    async with following(redis_server) as it:
        reply = it.probe.join("ann")
        view = await it.feed.wait_for_version("lobby", reply[2].decode(), reply[3])
        assert set(view.members) == {"ann"}
        assert (await it.feed.wait_for_version("lobby", reply[2].decode(), 1)) is view


async def test_waiting_for_a_version_fails_when_the_room_is_unfollowed(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        errors: list[Unavailable] = []

        async def wait() -> None:
            try:
                await it.feed.wait_for_version("lobby", "no such epoch", 1)
            except Unavailable as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            it.feed.unfollow("lobby")
        assert len(errors) == 1


async def test_waiting_for_a_version_fails_when_the_room_cannot_be_listed(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.presence.room_feed.KNOWN_WITHIN", 0.3)
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.feed.pause()
        with pytest.raises(Unavailable, match="cannot be listed"):
            await it.feed.wait_for_version("lobby", it.probe.epoch(), 1)
        it.feed.resume()
        view = await it.feed.wait_for_version("lobby", it.probe.epoch(), 1)
        assert set(view.members) == {"ann"}


async def test_a_large_room_is_followed_while_it_changes(redis_server: Server) -> None:
    async with following(redis_server, follow=False) as it:
        it.probe.join_many(f"u{number}" for number in range(2500))

        async def change() -> None:
            for number in range(0, 300, 2):
                it.probe.ask("leave", f"u{number}", f"n1.{number}")
                it.probe.join(f"v{number}")
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(change)
            view = await it.follow()
        await until(lambda: view.version == it.probe.version() and not view.waiting)
        expected = {f"u{number}" for number in range(2500) if number >= 300 or number % 2}
        assert set(view.members) == expected | {f"v{number}" for number in range(0, 300, 2)}
        assert set(it.view.members) == set(view.members)
