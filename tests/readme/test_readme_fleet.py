"""What the README says of running it for real: each line of its table has tests that are there, and run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from reactor.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REAL = README.split("\n## Running it for real\n")[1].split("\n## ")[0]
TABLE = REAL.split("\n### When something fails\n")[1].split("\n### ")[0]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """The tests that pytest finds in the files named, the slow ones too."""
    files = sorted({file for file, _ in NAMED.findall(README)})
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider", *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-2000:]
    return {line.partition("[")[0] for line in found.stdout.splitlines() if "::" in line}


def test_every_test_that_is_named_is_one_that_runs(collected: set[str]) -> None:
    named = {f"{file}::{test}" for file, test in NAMED.findall(README)}
    assert len(named) > 30
    assert named <= collected, f"not there: {sorted(named - collected)}"


def test_every_line_of_the_failures_is_held_by_a_named_test() -> None:
    rows = [row.strip("|").split("|") for row in re.findall(r"^\|.*\|$", TABLE, re.MULTILINE)[2:]]
    lines = [row for row in rows if not row[0].strip().startswith("**")]
    assert len(lines) > 25
    for what, _, held_by in lines:
        assert NAMED.fullmatch(held_by.strip().split(", ")[0]), f"no test holds: {what}"


def test_kubernetes_waits_for_as_long_as_a_node_may_take() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", REAL, re.MULTILINE | re.DOTALL)
    before = int(re.findall(r'\["sleep", "(\d+)"\]', block)[0])
    patience = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", block)[0])
    settings = Settings()
    assert patience >= before + settings.drain_seconds + 5
    assert set(re.findall(r"path: (\S+?), port: (\d+)", block)) == {
        ("/readyz", str(settings.port)),
        ("/healthz", str(settings.port)),
    }
