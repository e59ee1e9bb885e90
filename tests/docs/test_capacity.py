"""The document on capacity: its example is what the command prints, its figures are those it uses."""

import json
import re
import shlex

import pytest

from reactor import cli
from reactor.cli import output, size
from reactor.cli.sizing import CORE_SHARE, REDIS_CORE_SHARE, REDIS_MEMORY_SHARE
from scripts.benchmarks.capacity.figures import figures
from tests.docs.documents import ROOT, document

PATH = "scripts/deploy/CAPACITY.md"
TEXT = document(PATH)


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


def example() -> tuple[list[str], str]:
    """The arguments of the command in the document, and the block of what it prints."""
    pattern = r"^```sh\nreactor (size .*?)\n```\n+```\n(.*?)^```"
    ((command, shown),) = re.findall(pattern, TEXT, re.MULTILINE | re.DOTALL)
    return shlex.split(command), shown


def test_its_example_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    arguments, shown = example()
    monkeypatch.setattr(output, "use_json", lambda requested: requested)
    monkeypatch.setenv("COLUMNS", "110")
    lines = [line.rstrip() for line in printed(arguments, capsys).splitlines()]
    assert [line for line in lines if line] == [line.rstrip() for line in shown.splitlines() if line.strip()]


def test_the_json_has_the_values_of_the_table(capsys: pytest.CaptureFixture[str]):
    arguments, _ = example()
    found = json.loads(printed([*arguments, "--json"], capsys))
    assert found["load"]["users"] == 100_000
    assert set(found) == {
        "load", "memberships", "rooms", "heartbeats_per_second", "nodes", "redis", "users_per_core",
        "users_per_gib", "all_return_seconds",
    }  # fmt: skip
    assert found["nodes"]["total_memory_bytes"] == found["nodes"]["memory_bytes"] * found["nodes"]["workers"]


def test_its_table_has_every_figure_that_the_command_uses():
    rows = re.findall(r"^\| `(\w+)` \| ([\d,.]+)(?: (\w+))? \| (.+?) \| (.+?) \|$", TEXT, re.MULTILINE)
    table = size.capacity_table()
    assert [
        {"name": name, "value": float(value.replace(",", "")), "unit": unit, "of": what, "from": source}
        for name, value, unit, what, source in rows
    ] == [{"name": name, **row} for name, row in table.items()]


def test_the_figures_are_those_of_the_results():
    results = {
        name: json.loads((ROOT / "scripts" / "results" / f"{name}.json").read_text())
        for name in ("capacity", "gateway", "redis")
    }
    made = figures(**results)
    assert made == size.capacity_table(), "run scripts/bench_capacity.py --table --output scripts/results"


def test_it_names_what_is_planned_for():
    for share in (CORE_SHARE, REDIS_CORE_SHARE, REDIS_MEMORY_SHARE):
        assert f"{share:.0%}" in TEXT
