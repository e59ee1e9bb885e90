"""What the README says of running it for real: each line of its table has tests that are there, and run."""

import json
import re
import subprocess
import sys

import pytest

from tests.docs.documents import EVERYTHING, ROOT, document, section

DEPLOY = document("scripts/deploy/README.md")
TABLE = section("scripts/deploy/README.md", "## When something fails")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """The tests that pytest finds in the files named, the slow ones too."""
    files = sorted({file for file, _ in NAMED.findall(EVERYTHING)})
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider", *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-2000:]
    return {line.partition("[")[0] for line in found.stdout.splitlines() if "::" in line}


def test_every_test_that_is_named_is_one_that_runs(collected: set[str]) -> None:
    named = {f"{file}::{test}" for file, test in NAMED.findall(EVERYTHING)}
    assert len(named) > 30
    assert named <= collected, f"not there: {sorted(named - collected)}"


def test_every_line_of_the_failures_is_held_by_a_named_test() -> None:
    rows = [row.strip("|").split("|") for row in re.findall(r"^\|.*\|$", TABLE, re.MULTILINE)[2:]]
    lines = [row for row in rows if not row[0].strip().startswith("**")]
    assert len(lines) > 25
    for what, _, held_by in lines:
        assert NAMED.fullmatch(held_by.strip().split(", ")[0]), f"no test holds: {what}"


def test_the_figures_are_those_that_were_measured() -> None:
    measured = json.loads((ROOT / "scripts" / "results" / "fleet.json").read_text())
    ghosts, deploy, expiries = measured["ghosts"], measured["deploy"], measured["expiries"]
    last = sorted(one["last_s"] for one in ghosts)
    notified, expected = (
        sum(one[name] for one in ghosts) for name in ("notified_once", "notifications_expected")
    )
    ways = {one["way"]: one for one in measured["outage"]}
    stopped = max(one["stopped_s"] for one in deploy["restarts"])
    table = section("scripts/README.md", "## What clients see of deploys and failures")
    for figures in (
        f"{last[0]:.1f} to {last[-1]:.1f} s; {notified:,} of {expected:,} notified exactly once",
        f"| {deploy['leaves_seen']}, {deploy['joins_seen']} |",
        f"at most {stopped:.1f} s |",
        f"| {deploy['away_p50_s']:.1f} s, {deploy['away_max_s']:.1f} s |",
        *(f"| {ways[way]['whole_s']:.1f} s; {ways[way]['leaves_seen']} |" for way in ("frozen", "killed")),
        f"| {', '.join(format(one['commands_an_expiry'], '.1f') for one in expiries)} |",
    ):
        assert figures in table
