"""The benchmark of attacks at a tiny size: ordinary clients are neither refused nor cut."""

from pathlib import Path

import pytest

from scripts.bench_attacks import ATTACKS, markdown
from tests.bench.test_benchmarks import run


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_ordinary_clients_are_served_beside_each_attack(tmp_path: Path) -> None:
    result = await run("bench_attacks.py", tmp_path, "--quick")
    assert [one["attack"] for one in result["attacks"]] == list(ATTACKS)
    for one in result["attacks"]:
        assert one["refused_or_cut"] == 0, one
        assert one["counts"]["sent"] > 20, one
        assert one["memory_mib_more"] < 64, one
    table = markdown(result)
    assert all(table.count(f"| {described} |") == 1 for described in ATTACKS.values())
