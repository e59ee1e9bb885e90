"""Views when diffs are lost: each gap is noticed, healed by a listing, and told as one diff."""

import anyio
import anyio.lowlevel
import pytest

from reactor.errors import Unavailable
from reactor.presence import room_feed as diffs
from tests.redis.presence.following import CHANNEL, following
from tests.redis.presence.probe import Probe
from tests.support.servers import Server
from tests.support.stores import done
from tests.support.waiting import until


async def test_a_gap_is_healed_by_a_listing_and_told_as_one_diff(redis_server: Server) -> None:
    async with following(redis_server) as it:
        for user in ("ann", "bob", "cy"):
            it.probe.join(user)
        await it.agrees()
        it.told.clear()
        it.to_lose = 3
        it.probe.ask("kick", "bob", "")
        it.probe.ask("update", "cy", "C", "")
        it.probe.join("dan")
        it.probe.join("eve")
        await it.agrees()
        assert it.feed.resyncs.total() == 1
        diff, *more = it.told
        assert (diff.from_, diff.version) == (3, 7)
        assert {member.user_id for member in diff.joined} == {"dan", "eve"}
        assert {member.user_id for member in diff.updated} == {"cy"}
        assert [(left.user_id, left.reason) for left in diff.left] == [("bob", "kicked")]
        assert more == []
        assert ("bob", "kicked", "bob") in it.left


async def test_a_killed_link_is_healed_though_nothing_is_published_any_more(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.to_lose = 99
        it.probe.join("bob")
        it.probe.ask("leave", "ann", "n1.1")
        redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await it.agrees()
        assert it.left[-1] == ("ann", "left", "ann")


async def test_a_link_killed_again_while_its_loss_is_being_healed_is_healed_too(redis_server: Server) -> None:
    """A listing that was on its way when the link was lost again may be older than what was missed then."""
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()

        async def meanwhile() -> None:
            it.to_lose = 99
            it.probe.join("bob")
            await until(lambda: redis_server.control.pubsub_numsub(CHANNEL) == [(CHANNEL, 1)])
            it.feed.resync()

        it.behind_next_listing(meanwhile)
        it.feed.resync()
        await it.agrees()


async def test_who_leaves_while_the_room_is_listed_anew_is_told_with_the_reason(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()

        async def meanwhile() -> None:
            it.probe.ask("kick", "ann", "")
            it.probe.join("bob")
            await until(lambda: len(it.feed._rooms["lobby"].view.deferred) == 2)

        it.behind_next_listing(meanwhile)
        it.feed.resync()
        await it.agrees()
        assert it.left == [("ann", "kicked", "ann")]


async def test_one_who_had_no_part_in_the_recovery_follows_into_the_new_epoch(redis_server: Server) -> None:
    """A server that came up between the return of Redis and the renewal of the room."""
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        assert done(it.probe.store.renew_epoch("lobby", "another life"))
        await until(lambda: it.view.epoch == it.probe.epoch())
        await it.agrees()
        assert [one.from_ for one in it.told][-1] == 0
        assert it.left == []


async def test_who_came_back_behind_the_listing_has_left_and_come_anew(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.to_lose = 1
        it.probe.ask("kick", "ann", "")
        it.probe.sleep()

        async def meanwhile() -> None:
            it.probe.join("ann")
            await until(lambda: len(it.feed._rooms["lobby"].view.deferred) == 1)

        it.behind_next_listing(meanwhile)
        it.feed.resync()
        await it.agrees()
        assert it.left == [("ann", "kicked", "ann")]


async def test_who_left_when_redis_lost_its_data_is_told_as_it_is_on_record(redis_server: Server) -> None:
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


async def test_a_link_lost_while_a_room_is_being_opened_is_healed_too(redis_server: Server) -> None:
    async with following(redis_server, held=False) as it:

        async def meanwhile() -> None:
            it.to_lose = 99
            it.probe.join("ann")
            it.feed.resync()

        it.behind_next_listing(meanwhile)
        view = await it.follow()
        await until(lambda: set(view.members) == {"ann"})


async def test_a_diff_lost_on_the_way_is_missed_by_who_waits_for_it(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffs, "DIFF_TIMEOUT", 0.2)
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.to_lose = 99
        reply = it.probe.join("bob")
        with anyio.fail_after(5):
            view = await it.feed.wait_for_version("lobby", reply[2].decode(), reply[3])
        assert set(view.members) == {"ann", "bob"}
        assert it.feed.resyncs.total() == 1
        await it.agrees()


async def test_who_waits_for_a_version_of_an_epoch_that_is_over_gets_what_there_is(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffs, "DIFF_TIMEOUT", 0.2)
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        reply = it.probe.join("bob")
        it.probe.client.flushall()
        it.probe.join("cy")
        with anyio.fail_after(5):
            view = await it.feed.wait_for_version("lobby", reply[2].decode(), reply[3] + 1)
        assert set(view.members) == {"cy"}


async def test_a_room_cannot_be_held_while_redis_is_away_and_can_when_it_is_back(
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


async def test_what_was_flushed_is_told_as_a_fresh_room_with_the_next_change(redis_server: Server) -> None:
    async with following(redis_server) as it:
        for user in ("ann", "bob"):
            it.probe.join(user)
        await it.agrees()
        it.probe.client.flushall()
        it.probe.join("cy")
        await it.agrees()
        assert it.told[-1].from_ == 0
        assert it.view.epoch == it.probe.epoch()


async def test_what_nobody_can_read_is_no_diff_and_takes_nothing_down(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        for garbage in (b"", b"garbage", b"\xc1", b"\x97" + b"\xa1x" * 7, b"\x90"):
            redis_server.control.publish(CHANNEL, garbage)
        it.probe.join("bob")
        await it.agrees()


async def test_while_paused_nothing_is_told_and_then_all_at_once(redis_server: Server) -> None:
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.told.clear()
        it.feed.pause()
        known = it.feed.last_known("lobby", "ann")
        assert known is not None
        it.probe.join("bob")
        it.probe.ask("leave", "ann", "n1.1")
        it.probe.join("ann", username="A")
        await until(lambda: it.probe.version() == 4)
        await anyio.wait_all_tasks_blocked()
        assert it.told == []
        it.feed.resume()
        await it.agrees()
        (diff,) = it.told
        assert (diff.from_, diff.version) == (1, 4)
        assert it.view.members["ann"].username == "A"


async def test_who_is_entered_again_after_a_stall_is_seen_also_by_whoever_listed_the_room_meanwhile(
    redis_server: Server,
) -> None:
    async with following(redis_server, held=False) as it:
        it.probe.on_shard("mark_shard_alive", "lobby", 5_000, "", 0)
        for user in ("ann", "bob"):
            it.probe.join(user)
        it.probe.lapse("ann")
        it.probe.client.hincrby(it.probe.key("pulse"), "at", -5_001)  # nobody could speak up for a lease
        view = await it.follow()
        assert set(view.members) == {"bob"}
        it.probe.join("ann", epoch=it.probe.epoch())
        await it.agrees()
        assert set(view.members) == {"ann", "bob"}


async def test_who_is_entered_again_as_it_was_is_no_news_to_who_never_missed_it(
    redis_server: Server,
) -> None:
    async with following(redis_server) as it:
        it.probe.on_shard("mark_shard_alive", "lobby", 5_000, "", 0)
        it.probe.join("ann", username="A")
        await it.agrees()
        it.probe.lapse("ann")
        it.probe.client.hincrby(it.probe.key("pulse"), "at", -5_001)
        it.told.clear()
        it.probe.join("ann", epoch=it.probe.epoch())
        await until(lambda: it.view.version == 2)
        (diff,) = it.told
        assert (diff.from_, diff.joined, diff.updated, diff.left) == (1, [], [], [])
        it.probe.ask("update", "ann", "B", "")
        await it.agrees()
        assert [member.username for member in it.told[-1].updated] == ["B"]


async def test_a_room_that_was_let_go_while_it_was_healed_says_nothing_more(redis_server: Server) -> None:
    """It may be followed anew meanwhile, and what the former one says would take its followers back."""
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        it.feed.pause()
        it.probe.join("bob")
        it.feed.unfollow("lobby")
        it.told.clear()
        it.view.invalidate()
        it.feed.resume()
        view = await it.feed.follow("lobby")
        assert set(view.members) == {"ann", "bob"}
        it.probe.join("cy")
        await until(lambda: it.told)
        assert [(diff.from_, diff.version) for diff in it.told] == [(2, 3)]


async def test_all_who_wait_in_a_former_epoch_are_there_after_one_listing(redis_server: Server) -> None:
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


async def test_a_room_that_begins_anew_without_those_who_are_here_is_not_told(redis_server: Server) -> None:
    """FLUSHALL: nothing says that the data is gone but that somebody joins what should not be empty."""
    async with following(redis_server) as it:
        it.probe.join("ann")
        await it.agrees()
        suspected: list[set[str]] = []

        def is_data_loss(_room_id: str, user_ids: set[str]) -> bool:
            suspected.append(user_ids)
            if "ann" in user_ids:
                return False
            it.feed.pause()
            return True

        it.feed._is_data_loss = is_data_loss
        it.told.clear()
        redis_server.control.flushall()
        it.probe.join("bob")
        await until(lambda: suspected == [{"bob"}])
        it.probe.join("ann")
        assert it.told == [], "the others did not leave"
        it.feed.resume()
        await it.agrees()
