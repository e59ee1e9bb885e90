"""The logs in Redis are trimmed by bytes and by age, and a room that fills one loses its own changes."""

from typing import Any

import pytest

from tests.redis.presence.cases import probing
from tests.redis.presence.probe import Probe
from tests.support.servers import Server

DAY = 86_400_000
LONG = "x" * 250


def trim(probe: Probe, max_bytes: int, max_age: int = 0) -> Any:
    return probe.on_shard("trim_logs", "lobby", max_bytes, max_age, 7 * DAY)


def read(probe: Probe, endpoint: str = "hook", limit: int = 10_000) -> Any:
    return probe.on_shard("read_changes", "lobby", endpoint, limit, 7 * DAY)


def fill(probe: Probe, count: int, room: str = "lobby", data: str = "") -> None:
    for number in range(count):
        probe.join(f"{LONG[:100]}{number}", f"n1.{number}", room=room, data=data)


def leave(probe: Probe, count: int) -> None:
    for number in range(count):
        probe.ask("leave", f"{LONG[:100]}{number}", f"n1.{number}")


def memory(probe: Probe, key: str) -> int:
    return int(probe.client.memory_usage(probe.key(key), samples=0) or 0)


def test_departures_are_trimmed_to_their_bytes(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        fill(probe, 600)
        leave(probe, 600)
        before = memory(probe, "departures")
        assert trim(probe, 10 << 20) == [0, 0]
        removed, _ = trim(probe, 100_000)
        assert removed > 100
        assert memory(probe, "departures") < min(150_000, before / 2)
        assert probe.departures()[-1]["user"] == probe.id(f"{LONG[:100]}599"), "the oldest are removed"


def test_changes_are_trimmed_by_age_and_those_not_read_are_missed(redis_server: Server) -> None:
    """Received or not: names and data of users are in there, and the log lives as long as it is read."""
    with probing(redis_server) as probe:
        old = f"{probe.now() - 8 * DAY}"
        for number in range(3):
            probe.client.xadd(probe.key("changes"), {"room": "old", "diff": "x"}, id=f"{old}-{number + 1}")
        probe.client.hset(probe.key("places"), "hook", f"{old}-1 1")
        fill(probe, 2, room="lobby")
        assert trim(probe, 10 << 20) == [0, 3]
        first, missed, *changes = read(probe)
        assert (first, missed, len(changes)) == (3, 2, 2 * 3)
        assert trim(probe, 10 << 20) == [0, 0]
        probe.client.delete(probe.key("changes"), probe.key("places"))


def test_departures_are_trimmed_by_age(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        fill(probe, 5)
        leave(probe, 5)
        probe.client.xadd(probe.key("departures"), {"room": "old"}, id="*")
        assert trim(probe, 10 << 20, DAY) == [0, 0]
        probe.client.delete(probe.key("departures"))
        probe.client.xadd(probe.key("departures"), {"room": "old"}, id=f"{probe.now() - 2 * DAY}-0")
        probe.client.xadd(probe.key("departures"), {"room": "new"}, id=f"{probe.now() - DAY // 2}-0")
        assert trim(probe, 10 << 20, DAY) == [1, 0]
        assert [entry["room"] for entry in probe.departures()] == ["new"]


def test_logs_that_do_not_exist_are_not_created(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        assert trim(probe, 1000, DAY) == [0, 0]
        assert probe.client.keys() == []


def test_a_room_that_fills_the_log_does_not_push_out_the_changes_of_another(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        read(probe)  # the endpoint begins
        other = next(name for name in map(str, range(1000)) if probe.key("x") == probe.key("x", room=name))
        fill(probe, 50, room=other)
        fill(probe, 400, data='"' + "y" * 1000 + '"')
        removed = sum(trim(probe, 150_000)[1] for _ in range(3))
        assert removed > 250
        assert memory(probe, "changes") < 300_000
        first, missed, *flat = read(probe)
        rooms = flat[1::3]
        assert rooms.count(other.encode()) == 50
        assert missed == removed, "what was removed is reported"
        assert len(rooms) == 450 - removed
        assert read(probe)[1] == 0, "once"
        last = first + len(rooms)
        probe.on_shard("confirm_changes", "lobby", "hook", flat[-3].decode(), last)
        fill(probe, 3, room=other + "x" if probe.key("x") == probe.key("x", room=other + "x") else other)
        following, missed, *flat = read(probe)
        assert (following, missed) == (last, 0)
        probe.client.delete(probe.key("changes"), probe.key("places"))


@pytest.mark.parametrize("rooms", [40])
def test_changes_of_many_rooms_are_trimmed_from_the_oldest(redis_server: Server, rooms: int) -> None:
    with probing(redis_server) as probe:
        read(probe)
        names = [name for name in map(str, range(2000)) if probe.key("x") == probe.key("x", room=name)][
            :rooms
        ]
        for name in names:
            fill(probe, 10, room=name, data='"' + "y" * 500 + '"')
        removed = trim(probe, 100_000)[1]
        assert removed > 100
        assert memory(probe, "changes") < 200_000
        _, missed, *flat = read(probe)
        assert missed == removed - 1, "without the entry with which the log began"
        assert flat[1::3][-1] == names[-1].encode()
        probe.client.delete(probe.key("changes"), probe.key("places"))


def test_a_user_that_may_not_trim_is_answered_so_and_refused_nothing(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        fill(probe, 5)
        leave(probe, 5)
        everything = ("on", "nopass", "allkeys", "allchannels", "allcommands")
        probe.client.execute_command("ACL", "SETUSER", "limited", *everything, "-xtrim")
        probe.client.execute_command("AUTH", "limited", "x")
        assert trim(probe, 1000, DAY) == [-1, -1]
        probe.client.execute_command("ACL", "SETUSER", "limited", "+xtrim", "-xdel")
        removed, _ = trim(probe, 1000, DAY)
        assert removed > 0
        stats = probe.client.info("commandstats")
        assert stats.get("cmdstat_xdel", {"rejected_calls": 0})["rejected_calls"] == 0


@pytest.mark.parametrize("log", ["departures", "changes"])
def test_a_log_of_a_wrong_type_is_renamed_aside_and_stops_no_trimming(redis_server: Server, log: str) -> None:
    with probing(redis_server) as probe:
        probe.client.set(probe.key(log), "?")
        assert trim(probe, 100_000) == [0, 0]
        assert probe.client.delete(probe.key(f"damaged:{log}")) == 1
