"""The pacemaker: every key expires on time, one node of the fleet scans, and no scan repeats without need."""

from time import monotonic

import anyio
import pytest

from reactor.expiry import pacemaker
from reactor.fleet.election import LEADERSHIP_TTL_MS, RENEWAL_INTERVAL
from tests.redis.expiry.path import expiry_path
from tests.support.keyspace import SHARDS, shard_of
from tests.support.servers import Server
from tests.support.waiting import until

SLACK = 5000
"""Milliseconds after its deadline within which a departure has to happen, on a busy machine too.

Tests of punctuality switch the regular scans off: without a timely scan the departure would take a minute.
"""

NO_REGULAR_SCANS = 60.0


@pytest.fixture
def no_regular_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacemaker, "MAX_SCAN_INTERVAL", NO_REGULAR_SCANS)


@pytest.mark.usefixtures("no_regular_scans")
async def test_a_key_expires_on_time_although_redis_itself_would_not_expire_it(redis_server: Server) -> None:
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


@pytest.mark.usefixtures("no_regular_scans")
async def test_each_member_of_a_room_expires_at_its_own_deadline(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.listen()
        await it.pace()
        for number in range(40):
            # The first one must outlive the last join, which would otherwise make its departure.
            it.join(f"u{number}", ttl=3000 + 15 * number)
        await until(lambda: it.reaper.found_by.total() == 40)
        late = sorted(it.lateness(40))
        assert late[0] > 0
        assert late[-1] < SLACK


@pytest.mark.usefixtures("no_regular_scans")
async def test_without_events_the_pacemaker_claims_at_once(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.pace(events=False)
        for number in range(20):
            it.join(f"u{number}", room=f"room{number}", ttl=300)
        await until(lambda: it.reaper.found_by.total() == 20)
        assert it.reaper.found_by == {"pacemaker": 20}
        assert max(it.lateness(20)) < SLACK


async def test_a_member_whose_event_was_lost_is_claimed_after_the_event_timeout(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.pace(events=True)  # but no listener runs
        it.join("ann", ttl=300)
        await until(lambda: it.reaper.found_by.total() == 1)
        assert it.reaper.found_by == {"pacemaker": 1}
        (late,) = it.lateness(1)
        assert pacemaker.EVENT_TIMEOUT * 1000 <= late < 1000 + SLACK


async def test_a_lost_event_is_noticed_although_the_room_is_scanned_all_the_time(
    redis_server: Server,
) -> None:
    async with expiry_path(redis_server) as it:
        await it.pace(events=True)
        near = next(room for n in range(99) if it.probe.key("", room := f"room{n}") == it.probe.key(""))
        users = [f"u{number}" for number in range(60)]
        for number, user in enumerate(users):
            it.join(user, room=near, ttl=3000 + 50 * number)  # the refresh comes before
        it.probe.refresh(*users, room=near, ttl=60_000)
        it.join("ann", ttl=3500)
        await until(lambda: it.reaper.found_by.total() == 1)
        assert max(it.lateness(1)) < 1000 + SLACK


@pytest.mark.usefixtures("no_regular_scans")
@pytest.mark.parametrize("scanned", [False, True], ids=["before its first scan", "after it"])
async def test_the_disconnect_grace_wakes_an_idle_pacemaker(redis_server: Server, scanned: bool) -> None:
    async with expiry_path(redis_server) as it:
        await it.listen()
        pacing = await it.pace()
        for number in range(20):
            it.join(f"u{number}", room=f"room{number}", ttl=60_000)
        await until(lambda: pacing.pacemaker.leading)
        if scanned:
            await until(lambda: pacing.pacemaker.scans >= SHARDS)
        for number in range(20):
            it.detach(f"u{number}", room=f"room{number}", grace=300)
        await until(lambda: it.reaper.found_by.total() == 20)
        assert max(it.lateness(20)) < SLACK


async def test_a_lost_wake_up_delays_expiry_until_the_next_regular_scan(bundled_server: Server) -> None:
    async with expiry_path(bundled_server) as it:
        await it.listen()
        pacing = await it.pace()
        it.join("ann", ttl=60_000)
        await until(lambda: pacing.pacemaker.leading and pacing.pacemaker.scans > SHARDS)
        pacing.drops_wakeups = True
        it.detach("ann", grace=200)
        await until(lambda: it.reaper.found_by.total() == 1)
        assert max(it.lateness(1)) < 1000 + SLACK


async def test_scans_are_in_proportion_to_due_deadlines_while_heartbeats_move_them(
    bundled_server: Server,
) -> None:
    async with expiry_path(bundled_server) as it:
        await it.listen()
        pacing = await it.pace()
        users = [f"u{number}" for number in range(200)]
        for number, user in enumerate(users):
            it.join(user, ttl=3000 + number)
        await until(lambda: pacing.pacemaker.leading)
        began, scans, before = monotonic(), pacing.pacemaker.scans, pacing.pacemaker.moved
        while (moved := pacing.pacemaker.moved - before) < len(users):
            it.probe.refresh(*users, ttl=3000)
            await anyio.sleep(0.1)
        spent = monotonic() - began
        scans = pacing.pacemaker.scans - scans
        assert it.reaper.found_by.total() == 0, "no member has expired"
        assert moved <= len(users) * (spent / 3 + 1), "each at most once a TTL"
        assert scans <= moved + SHARDS * (spent + 2)


async def test_an_idle_fleet_is_scanned_once_a_second(bundled_server: Server) -> None:
    async with expiry_path(bundled_server) as it:
        pacing = await it.pace()
        for number in range(50):
            it.join(f"u{number}", room=f"room{number}", ttl=60_000)
        await until(lambda: pacing.pacemaker.scans >= SHARDS)
        began, scans = monotonic(), pacing.pacemaker.scans
        await anyio.sleep(1.5)  # no additional scans happen
        assert pacing.pacemaker.scans - scans <= (monotonic() - began + 1.5) * SHARDS


@pytest.mark.parametrize("what", ["permanent", "expired and never claimed"])
async def test_a_member_that_never_departs_does_not_make_it_spin(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(pacemaker, "MAX_SCAN_INTERVAL", 0.3)
    async with expiry_path(bundled_server, reaps=False) as it:
        it.join("ann", ttl=300)
        if what == "permanent":
            it.probe.client.persist(it.probe.presence_key("ann"))
        pacing = await it.pace()
        await until(lambda: pacing.pacemaker.scans >= 3 * SHARDS)
        began, scans = monotonic(), pacing.pacemaker.scans
        await anyio.sleep(0.6)  # no additional scans happen
        spent = monotonic() - began
        assert pacing.pacemaker.scans - scans <= (spent / 0.3 + 2) * SHARDS + (spent / 0.25 + 6)


async def test_only_the_leader_scans_and_another_node_takes_over_within_two_seconds(
    bundled_server: Server,
) -> None:
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
        assert LEADERSHIP_TTL_MS / 1000 + RENEWAL_INTERVAL <= 2.0
        await until(lambda: it.reaper.found_by.total() == 2)
        assert second.pacemaker.scans > 0


async def test_it_continues_when_redis_is_back(redis_server: Server) -> None:
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


async def test_a_shorter_ttl_takes_effect_on_time(redis_server: Server) -> None:
    """A node with newer settings sends heartbeats with a shorter TTL than the member joined with."""
    async with expiry_path(redis_server) as it:
        await it.pace(events=False)
        it.join("ann", ttl=60_000)
        await it.redis.store.refresh(shard_of("lobby"), "n1", [("lobby:user:ann", 300)])
        await until(lambda: it.reaper.found_by.total() == 1)
        assert max(it.lateness(1)) < SLACK


async def test_rooms_come_up_again_the_later_the_more_claims_are_pending(redis_server: Server) -> None:
    async with expiry_path(redis_server, reaps=False) as it:
        it.reaper.enqueue(shard_of("lobby"), [f"room:user:u{number}" for number in range(50_000)], "event")
        await it.pace()
        it.join("ann", ttl=50)
        rooms = it.probe.key("rooms")
        await until(lambda: (it.probe.client.zscore(rooms, "lobby") or 0) > it.probe.now() + 3000)


async def test_a_room_with_more_expired_members_than_a_scan_reads_is_scanned_on(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacemaker, "ROWS_PER_SCAN", 10)
    async with expiry_path(redis_server) as it:
        await it.listen()
        for number in range(95):
            it.join(f"u{number}", ttl=300)
        await it.pace()
        await until(lambda: len(it.probe.departures()) == 95)
        assert max(it.lateness(95)) < SLACK
