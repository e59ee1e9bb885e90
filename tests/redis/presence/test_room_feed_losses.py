"""Views when diffs are lost: each gap is noticed, repaired by a list, and passed on as one diff."""

import anyio
import anyio.lowlevel
import pytest

from reactor.errors import Unavailable
from reactor.presence import room_feed as diffs
from tests.redis.presence.following import CHANNEL, following
from tests.redis.presence.probe import Probe
from tests.support.servers import Server
from tests.support.stores import done
from tests.support.waiting import PATIENCE, until


async def test_a_gap_is_repaired_by_a_list_and_passed_on_as_one_diff(redis_server: Server) -> None:
    async with following(redis_server) as it:
        for user in ("ann", "bob", "cy"):
            it.probe.join(user)
        await it.agrees()
        it.diffs.clear()
        it.publications_to_drop = 3
        it.probe.ask("kick", "bob", "")
        it.probe.ask("update", "cy", "C", "", "", 0)
        it.probe.join("dan")
        it.probe.join("eve")
        await it.agrees()
        assert it.feed.resyncs.total() == 1
        diff, *more = it.diffs
        assert (diff.from_, diff.version) == (3, 7)
        assert {member.user_id for member in diff.joined} == {"dan", "eve"}
        assert {member.user_id for member in diff.updated} == {"cy"}
        assert [(left.user_id, left.reason) for left in diff.left] == [("bob", "kicked")]
        assert more == []
        assert ("bob", "kicked", "bob") in it.left


async def test_a_room_that_was_listed_again_is_reported_as_known_after_its_change_or_without_one(
    redis_server: Server,
) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        assert (it.known, len(it.diffs)) == ([], 1)
        it.feed.resync()
        await until(lambda: bool(it.known))
        assert it.known == [("lobby", 1)]
        it.publications_to_drop = 1
        it.probe.join("bob")
        it.feed.resync()
        await until(lambda: len(it.known) > 1)
        assert it.known[1:] == [("lobby", 2)]


async def test_a_killed_subscription_is_repaired_without_further_publications(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.publications_to_drop = 99
        it.probe.join("bob")
        it.probe.ask("leave", "ann", "n1.1")
        redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await it.agrees()
        assert it.left[-1] == ("ann", "left", "ann")


async def test_a_gap_during_a_resync_is_repaired_too(redis_server: Server) -> None:
    """A list that was being read during the second gap may be older than what was missed in it."""
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()

        async def meanwhile() -> None:
            it.publications_to_drop = 99
            it.probe.join("bob")
            await until(lambda: redis_server.control.pubsub_numsub(CHANNEL) == [(CHANNEL, 1)])
            it.feed.resync()

        it.during_next_list(meanwhile)
        it.feed.resync()
        await it.agrees()


async def test_a_member_that_leaves_during_a_resync_is_passed_on_with_its_reason(
    redis_server: Server,
) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()

        async def meanwhile() -> None:
            it.probe.ask("kick", "ann", "")
            it.probe.join("bob")
            await until(lambda: len(it.feed._rooms["lobby"].view.deferred) == 2)

        it.during_next_list(meanwhile)
        it.feed.resync()
        await it.agrees()
        assert it.left == [("ann", "kicked", "ann")]


async def test_a_node_without_part_in_the_recovery_follows_into_the_new_epoch(redis_server: Server) -> None:
    """A server that started between the return of Redis and the room's new epoch."""
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        assert done(it.probe.store.renew_epoch("lobby", "another life"))
        await until(lambda: it.view.epoch == it.probe.epoch())
        await it.agrees()
        assert [one.from_ for one in it.diffs][-1] == 0
        assert it.left == []


async def test_a_member_that_left_and_rejoined_during_a_resync_is_passed_on_as_both(
    redis_server: Server,
) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.publications_to_drop = 1
        it.probe.ask("kick", "ann", "")
        it.probe.advance_clock()

        async def meanwhile() -> None:
            it.probe.join("ann")
            await until(lambda: len(it.feed._rooms["lobby"].view.deferred) == 1)

        it.during_next_list(meanwhile)
        it.feed.resync()
        await it.agrees()
        assert it.left == [("ann", "kicked", "ann")]


async def test_members_lost_with_redis_data_are_passed_on_with_their_recorded_reasons(
    redis_server: Server,
) -> None:
    async with following(redis_server) as it:
        for user in "ann", "bob", "cy":
            it.probe.join(user)
        await it.agrees()
        ann = next(member for member in it.view.members.values() if member.user_id == "ann")
        it.probe.client.flushall()
        done(it.probe.store.leave(it.probe.entry("ann"), "n1.1", known=ann, known_epoch=it.view.epoch))
        it.probe.join("cy", epoch="*", joined_at=it.view.members["cy"].joined_at)
        it.feed.resync()
        await it.agrees()
        assert sorted(it.left) == [("ann", "left", "ann"), ("bob", "disconnected", "bob")]
        assert sorted((one["user"], one["reason"]) for one in it.probe.departures()) == [
            ("ann", "left"), ("bob", "disconnected"),
        ]  # fmt: skip


async def test_a_gap_while_a_room_is_opened_is_repaired_too(redis_server: Server) -> None:
    async with following(redis_server, follow=False) as it:

        async def meanwhile() -> None:
            it.publications_to_drop = 99
            it.probe.join("ann")
            it.feed.resync()

        it.during_next_list(meanwhile)
        view = await it.follow()
        await until(lambda: set(view.members) == {"ann"})


async def test_waiting_for_a_version_detects_a_lost_diff(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffs, "DIFF_TIMEOUT", 0.2)
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.publications_to_drop = 99
        reply = it.probe.join("bob")
        with anyio.fail_after(PATIENCE):
            view = await it.feed.wait_for_version("lobby", reply[2].decode(), reply[3])
        assert set(view.members) == {"ann", "bob"}
        assert it.feed.resyncs.total() == 1
        await it.agrees()


async def test_waiting_for_a_version_of_a_past_epoch_returns_the_present_view(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffs, "DIFF_TIMEOUT", 0.2)
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        reply = it.probe.join("bob")
        it.probe.client.flushall()
        it.probe.join("cy")
        with anyio.fail_after(PATIENCE):
            view = await it.feed.wait_for_version("lobby", reply[2].decode(), reply[3] + 1)
        assert set(view.members) == {"cy"}


async def test_following_fails_while_redis_is_away_and_works_when_it_is_back(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(redis_server) as it:
        redis_server.kill()
        await until(lambda: not it.channels.listening)
        with monkeypatch.context() as impatient:
            impatient.setattr(diffs, "DISCONNECTED_TIMEOUT", 0.3)
            with pytest.raises(Unavailable):
                await it.feed.follow("hall")
        assert it.feed.view("hall") is None
        redis_server.start()
        view = await it.feed.follow("hall")
        probe = Probe(redis_server)
        probe.join("ann", room="hall")
        await until(lambda: set(view.members) == {"ann"})
        probe.join("bob")
        await until(lambda: set(it.view.members) == {"bob"})
        probe.close()


async def test_a_flushed_room_is_passed_on_as_a_new_epoch_with_its_next_change(redis_server: Server) -> None:
    async with following(redis_server) as it:
        for user in ("ann", "bob"):
            it.probe.join(user)
        await it.agrees()
        it.probe.client.flushall()
        it.probe.join("cy")
        await it.agrees()
        assert it.diffs[-1].from_ == 0
        assert it.view.epoch == it.probe.epoch()


async def test_unreadable_publications_are_ignored(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        for garbage in (b"", b"garbage", b"\xc1", b"\x97" + b"\xa1x" * 7, b"\x90"):
            redis_server.control.publish(CHANNEL, garbage)
        it.probe.join("bob")
        await it.agrees()


async def test_a_paused_feed_passes_on_nothing_and_then_one_diff(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.diffs.clear()
        it.feed.pause()
        known = it.feed.last_known("lobby", "ann")
        assert known is not None
        it.probe.join("bob")
        it.probe.ask("leave", "ann", "n1.1")
        it.probe.join("ann", username="A")
        await until(lambda: it.probe.version() == 4)
        await anyio.wait_all_tasks_blocked()
        assert it.diffs == []
        it.feed.resume()
        await it.agrees()
        (diff,) = it.diffs
        assert (diff.from_, diff.version) == (1, 4)
        assert it.view.members["ann"].username == "A"


async def test_a_member_registered_again_after_a_stall_appears_in_views_listed_meanwhile(
    redis_server: Server,
) -> None:
    async with following(redis_server, follow=False) as it:
        it.probe.on_shard("mark_shard_alive", "lobby", 5_000, "", 0)
        for user in ("ann", "bob"):
            it.probe.join(user)
        it.probe.expire("ann")
        it.probe.client.hincrby(it.probe.key("pulse"), "at", -5_001)  # no mark for a lease
        view = await it.follow()
        assert set(view.members) == {"bob"}
        it.probe.join("ann", epoch=it.probe.epoch())
        await it.agrees()
        assert set(view.members) == {"ann", "bob"}


async def test_a_member_registered_again_unchanged_is_no_update(
    redis_server: Server,
) -> None:
    async with following(redis_server) as it:
        it.probe.on_shard("mark_shard_alive", "lobby", 5_000, "", 0)
        it.probe.join("ann", username="A")
        await it.agrees()
        it.probe.expire("ann")
        it.probe.client.hincrby(it.probe.key("pulse"), "at", -5_001)
        it.diffs.clear()
        it.probe.join("ann", epoch=it.probe.epoch())
        await until(lambda: it.view.version == 2)
        (diff,) = it.diffs
        assert (diff.from_, diff.joined, diff.updated, diff.left) == (1, [], [], [])
        it.probe.ask("update", "ann", "B", "", "", 0)
        await it.agrees()
        assert [member.username for member in it.diffs[-1].updated] == ["B"]


async def test_a_room_unfollowed_during_a_resync_passes_on_nothing_more(redis_server: Server) -> None:
    """The room may be followed again meanwhile, and a late diff would set its receivers back."""
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.feed.pause()
        it.probe.join("bob")
        it.feed.unfollow("lobby")
        it.diffs.clear()
        it.view.invalidate()
        it.feed.resume()
        view = await it.feed.follow("lobby")
        assert set(view.members) == {"ann", "bob"}
        it.probe.join("cy")
        await until(lambda: it.diffs)
        assert [(diff.from_, diff.version) for diff in it.diffs] == [(2, 3)]


async def test_all_waiting_for_versions_of_a_past_epoch_are_served_by_one_list(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        version = it.probe.join("bob")[3]
        it.feed.pause()
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(it.feed.wait_for_version, "lobby", "a former one", version)
            await anyio.lowlevel.checkpoint()
            it.feed.resume()
            with anyio.fail_after(diffs.DIFF_TIMEOUT * 3):
                await it.agrees()
        assert it.feed.resyncs.total() < 4


async def test_a_new_epoch_without_the_known_members_is_treated_as_data_loss(redis_server: Server) -> None:
    """After FLUSHALL the only sign is a join to a room that is not empty."""
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        suspected: list[str] = []

        def on_data_lost(room_id: str) -> None:
            suspected.append(room_id)
            it.feed.pause()

        it.feed._on_data_lost = on_data_lost
        it.diffs.clear()
        redis_server.control.flushall()
        it.probe.join("bob")
        await until(lambda: suspected == ["lobby"])
        it.probe.join("ann")
        assert it.diffs == [], "the other members did not leave"
        it.feed.resume()
        await it.agrees()
