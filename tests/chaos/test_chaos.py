"""Some schedules of the chaos command, and the proof that its oracle sees what is broken."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.history import Finding
from tests.chaos.jobs import Order, play_one
from tests.chaos.mutants import MUTANTS, Mutant
from tests.chaos.shapes import Sets, kinds

ROOT = Path(__file__).parents[2]
PEOPLE = 60


@pytest.fixture(scope="module")
def sets() -> Iterator[Sets]:
    with Sets.opened() as sets:
        yield sets


def _found(order: Order, sets: Sets) -> list[Finding]:
    outcome = play_one(order, sets)
    print(outcome.title)  # noqa: T201 - shown with a test that failed
    for finding in outcome.findings:
        print(finding.rule, finding.text, *finding.evidence, sep="\n    ")  # noqa: T201
    return [finding for finding in outcome.findings if finding.rule != "log"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("shape", "seed", "faults"),
    [
        ("single", 1, ("kill", "flushall", "clock-skew", "half-open")),
        ("sentinel", 2, ("failover", "kill-pubsub", "drop")),
        ("cluster", 3, ("move-slot", "deploy")),
    ],
)
def test_a_schedule_without_findings(shape: str, seed: int, faults: tuple[str, ...], sets: Sets) -> None:
    assert _found(Order(seed, ROOT, shape, faults, PEOPLE), sets) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(1001, 1013))
def test_more_schedules_without_findings(seed: int, sets: Sets) -> None:
    assert _found(Order(seed, ROOT), sets) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_the_oracle_finds_what_is_broken(mutant: Mutant, tmp_path: Path, sets: Sets) -> None:
    tree = mutant.make(tmp_path)
    rules = {
        finding.rule for finding in _found(Order(mutant.seed, tree, "single", mutant.faults, PEOPLE), sets)
    }
    assert rules & mutant.rules, f"found {rules}, not {set(mutant.rules)}"


def test_a_seed_makes_the_same_schedule_each_time() -> None:
    from tests.chaos.schedule import draw

    one, other = (draw(5, kinds=kinds()) for _ in range(2))
    assert (one.title, one.scripts, one.skews) == (other.title, other.scripts, other.skews)
    assert one.scripts != draw(6, kinds=kinds()).scripts
