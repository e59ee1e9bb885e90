"""The fleet benchmark at a tiny size: each part completes with correct results."""

from pathlib import Path

import pytest

from tests.bench.test_benchmarks import run


@pytest.mark.slow
async def test_the_fleet_benchmark_counts_received_joins_and_leaves(tmp_path: Path) -> None:
    result = await run("bench_fleet.py", tmp_path, "--quick")

    for one in result["ghosts"]:
        assert one["notified_once"] == one["notifications_expected"] == 100
        assert one["notified_wrongly"] == one["wrong_joins"] == 0
        assert one["reasons"] == {"disconnected": 100}
        assert one["last_s"] <= 1 + 6 + 2
    deploy = result["deploy"]
    assert [one["exit_code"] for one in deploy["restarts"]] == [0, 0]
    assert deploy["closings"] == {"1012": sum(one["connections"] for one in deploy["restarts"])}
    assert deploy["whole_at_the_end"]
    assert [one["way"] for one in result["outage"]] == ["frozen", "killed"]
    for one in (deploy, *result["outage"]):
        assert (one["leaves_seen"], one["joins_seen"]) == (0, 0), one["examples"]
        assert one["members_in_redis"] == 60
    one, three = result["expiries"]
    assert three["commands_an_expiry"] - one["commands_an_expiry"] <= 2
