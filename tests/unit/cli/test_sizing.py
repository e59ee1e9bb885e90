"""The computation behind `reactor size`: what it answers grows with the load."""

from dataclasses import replace
from typing import Any

import pytest

from reactor.cli.size import capacity_table
from reactor.cli.sizing import CORE_SHARE, Load, Size, size_of

FIGURES = {name: float(row["value"]) for name, row in capacity_table().items()}
SMALL = Load(
    users=1000, rooms_per_user=1, room_size=50, heartbeat_interval=25.0, joins_per_second=1.0, data=60,
    ttl=21600.0,
)  # fmt: skip


def size(**changes: Any) -> Size:
    return size_of(replace(SMALL, **changes), FIGURES)


def test_a_small_load_is_one_process_and_a_spare():
    found = size()
    assert found.nodes.workers == 2
    assert found.redis.primaries == 1
    assert found.nodes.connections == 1000, "the spare is lost"


def test_no_process_has_more_work_than_is_planned_for():
    for users in (1_000, 50_000, 200_000, 1_000_000):
        found = size(users=users, joins_per_second=users / 600)
        assert found.nodes.cores <= (found.nodes.workers - 1) * CORE_SHARE + FIGURES["node_idle_core"] + 0.1
        assert found.nodes.connections <= FIGURES["largest_node"]


@pytest.mark.parametrize(
    ("changes", "grows"),
    [
        ({"users": 2000}, ("nodes.cores", "nodes.memory_bytes", "redis.cores", "redis.memory_bytes")),
        ({"rooms_per_user": 3}, ("nodes.memory_bytes", "redis.cores", "redis.memory_bytes")),
        ({"heartbeat_interval": 10.0}, ("nodes.cores", "redis.cores")),
        ({"joins_per_second": 50.0}, ("nodes.cores", "redis.cores")),
        ({"room_size": 500}, ("nodes.cores", "all_return_seconds")),
        ({"data": 2000}, ("nodes.memory_bytes", "redis.memory_bytes")),
        ({"ttl": 60.0}, ("nodes.cores", "redis.cores")),
    ],
)
def test_what_costs_more_grows(changes: dict[str, float], grows: tuple[str, ...]):
    before, after = size().as_dict(), size(**changes).as_dict()
    for path in grows:
        former: Any = before
        latter: Any = after
        for step in path.split("."):
            former, latter = former[step], latter[step]
        assert latter > former, path


def test_a_load_beyond_one_redis_is_a_cluster_of_no_more_primaries_than_shards():
    found = size(users=5_000_000, joins_per_second=1000.0).redis
    assert 1 < found.primaries <= found.shards
    assert found.shards_per_primary * found.primaries >= found.shards


def test_the_number_of_processes_counts_their_own_cost_for_each_other():
    # Each further process receives the changes of the rooms that it follows.
    few, many = size(joins_per_second=2000.0), size(joins_per_second=4000.0)
    assert many.nodes.workers > few.nodes.workers
    assert many.nodes.cores > 2 * few.nodes.cores * 0.99
