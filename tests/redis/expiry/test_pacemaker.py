"""The pacemaker: it touches each key when its time is up, once in the fleet, and never spins."""

from time import monotonic

import anyio
import pytest

from reactor.expiry import pacemaker
from reactor.presence.keys import SHARDS, shard_of
from tests.redis.expiry.path import expiry_path
from tests.support.servers import Server
from tests.support.waiting import until

SLACK = 500
"""Milliseconds after its time by which a departure has to be told, on a busy machine."""

TOLD_BY_WAKE_UPS_ALONE = 60.0


async def test_a_key_ends_on_time_though_redis_itself_would_never_end_it(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.listen()
        await it.pace()
        for number in range(40):
            it.join(f"u{number}", room=f"room{number}", ttl=300 + 10 * number)
        await until(lambda: it.reaper.found_by.total() == 40)
        assert it.reaper.found_by == {"event": 40}
        late = it.lateness(40)
        assert min(late) > 0
        assert max(late) < SLACK


async def test_of_many_in_one_room_each_ends_on_its_own_time(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.listen()
        await it.pace()
        for number in range(40):
            it.join(f"u{number}", ttl=300 + 15 * number)
        await until(lambda: it.reaper.found_by.total() == 40)
        late = sorted(it.lateness(40))
        assert late[0] > 0
        assert late[-1] < SLACK


async def test_without_events_the_pacemaker_claims_at_once(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.pace(events=False)
        for number in range(20):
            it.join(f"u{number}", room=f"room{number}", ttl=300)
        await until(lambda: it.reaper.found_by.total() == 20)
        assert it.reaper.found_by == {"pacemaker": 20}
        assert max(it.lateness(20)) < SLACK


async def test_where_an_event_got_lost_the_pacemaker_claims_a_moment_later(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.pace(events=True)  # they are thought to flow, and nobody listens
        it.join("ann", ttl=300)
        await until(lambda: it.reaper.found_by.total() == 1)
        assert it.reaper.found_by == {"pacemaker": 1}
        (late,) = it.lateness(1)
        assert pacemaker.EVENT_TIMEOUT * 1000 <= late < 1000 + SLACK


async def test_a_lost_event_is_made_good_also_where_others_are_looked_at_all_the_time(
    redis_server: Server,
) -> None:
    async with expiry_path(redis_server) as it:
        await it.pace(events=True)
        near = next(room for n in range(99) if it.probe.key("", room := f"room{n}") == it.probe.key(""))
        users = [f"u{number}" for number in range(60)]
        for number, user in enumerate(users):
            it.join(user, room=near, ttl=300 + 50 * number)
        it.probe.refresh(*users, room=near, ttl=60_000)
        it.join("ann", ttl=300)
        await until(lambda: it.reaper.found_by.total() == 1)
        assert max(it.lateness(1)) < 1000 + SLACK


@pytest.mark.parametrize("looked", [False, True], ids=["before its first look", "long after"])
async def test_a_grace_wakes_it_though_it_had_nothing_to_do_for_long(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch, looked: bool
) -> None:
    monkeypatch.setattr(pacemaker, "MAX_SCAN_INTERVAL", TOLD_BY_WAKE_UPS_ALONE)
    async with expiry_path(redis_server) as it:
        await it.listen()
        pacing = await it.pace()
        for number in range(20):
            it.join(f"u{number}", room=f"room{number}", ttl=60_000)
        await until(lambda: pacing.pacemaker.leading)
        if looked:
            await until(lambda: pacing.pacemaker.scans >= SHARDS)
        for number in range(20):
            it.detach(f"u{number}", room=f"room{number}", grace=300)
        await until(lambda: it.reaper.found_by.total() == 20)
        assert max(it.lateness(20)) < SLACK


async def test_a_wake_up_that_got_lost_costs_a_second(bundled_server: Server) -> None:
    async with expiry_path(bundled_server) as it:
        await it.listen()
        pacing = await it.pace()
        it.join("ann", ttl=60_000)
        await until(lambda: pacing.pacemaker.leading and pacing.pacemaker.scans > SHARDS)
        pacing.deaf = True
        it.detach("ann", grace=200)
        await until(lambda: it.reaper.found_by.total() == 1)
        assert max(it.lateness(1)) < 1000 + SLACK


async def test_looks_are_in_proportion_to_what_is_due_while_all_deadlines_move(
    bundled_server: Server,
) -> None:
    async with expiry_path(bundled_server) as it:
        await it.listen()
        pacing = await it.pace()
        users = [f"u{number}" for number in range(200)]
        for number, user in enumerate(users):
            it.join(user, ttl=800 + number)
        await until(lambda: pacing.pacemaker.leading)
        began, looks, moved = monotonic(), pacing.pacemaker.scans, pacing.pacemaker.moved
        while monotonic() - began < 1.7:
            it.probe.refresh(*users, ttl=1_000)
            await anyio.sleep(0.1)
        spent = monotonic() - began
        looks, moved = pacing.pacemaker.scans - looks, pacing.pacemaker.moved - moved
        assert it.reaper.found_by.total() == 0, "nobody has gone"
        assert len(users) <= moved <= len(users) * (spent / 0.8 + 1), "each at most once a life"
        assert looks <= moved + SHARDS * (spent + 2)


async def test_an_idle_fleet_is_looked_at_once_a_second(bundled_server: Server) -> None:
    async with expiry_path(bundled_server) as it:
        pacing = await it.pace()
        for number in range(50):
            it.join(f"u{number}", room=f"room{number}", ttl=60_000)
        await until(lambda: pacing.pacemaker.scans >= SHARDS)
        looks = pacing.pacemaker.scans
        await anyio.sleep(1.5)  # no more looks than that come
        assert pacing.pacemaker.scans - looks <= 3 * SHARDS


@pytest.mark.parametrize("what", ["permanent", "lapsed and never claimed"])
async def test_what_cannot_be_ended_is_no_reason_to_spin(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(pacemaker, "MAX_SCAN_INTERVAL", 0.3)
    async with expiry_path(bundled_server, reaps=False) as it:
        it.join("ann", ttl=300)
        if what == "permanent":
            it.probe.client.persist(it.probe.presence_key("ann"))
        pacing = await it.pace()
        await until(lambda: pacing.pacemaker.scans >= 3 * SHARDS)
        looks = pacing.pacemaker.scans
        await anyio.sleep(0.6)  # no more looks than that come
        assert pacing.pacemaker.scans - looks <= 4 * SHARDS + 8


async def test_only_one_looks_and_another_takes_over_within_two_seconds(bundled_server: Server) -> None:
    async with expiry_path(bundled_server) as it:
        await it.listen()
        first = await it.pace("n1")
        await until(lambda: first.pacemaker.leading)
        second = await it.pace("n2")
        it.join("ann", ttl=300)
        await until(lambda: it.reaper.found_by.total() == 1)
        await until(lambda: first.pacemaker.scans >= 3 * SHARDS)
        assert not second.pacemaker.leading
        assert second.pacemaker.scans == 0
        first.scope.cancel()
        it.join("bob", ttl=300)
        died = monotonic()
        await until(lambda: second.pacemaker.leading)
        assert monotonic() - died < 2.0 + SLACK / 1000
        await until(lambda: it.reaper.found_by.total() == 2)
        assert second.pacemaker.scans > 0


async def test_it_goes_on_when_redis_is_back(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.listen()
        pacing = await it.pace()
        await until(lambda: pacing.pacemaker.leading)
        redis_server.kill()
        await until(lambda: not pacing.pacemaker.leading)
        redis_server.start()
        redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        it.join("ann", ttl=300)
        await until(lambda: it.reaper.found_by.total() == 1)
        assert max(it.lateness(1)) < 2000 + SLACK


async def test_terms_that_became_shorter_end_on_time(redis_server: Server) -> None:
    """A node whose settings are newer beats with a shorter TTL than the member joined with."""
    async with expiry_path(redis_server) as it:
        await it.pace(events=False)
        it.join("ann", ttl=60_000)
        await it.redis.store.refresh(shard_of("lobby"), "n1", [("lobby:user:ann", 300)])
        await until(lambda: it.reaper.found_by.total() == 1)
        assert max(it.lateness(1)) < SLACK
