"""Some schedules of the chaos suite, and mutations of the package that the oracle must find."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.history import Finding
from tests.chaos.mutants import MUTANTS, Mutant
from tests.chaos.runner import Job, run_one
from tests.chaos.shapes import kinds
from tests.support.server_sets import RunningSets

ROOT = Path(__file__).parents[2]
CLIENTS = 60


@pytest.fixture(scope="module")
def sets() -> Iterator[RunningSets]:
    with RunningSets.opened() as sets:
        yield sets


def _mutant_id(mutant: Mutant) -> str:
    return mutant.name.replace(" ", "-").replace("'", "")


def _findings_of(job: Job, sets: RunningSets) -> list[Finding]:
    outcome = run_one(job, sets)
    print(outcome.title)  # noqa: T201 - shown with a test that failed
    for finding in outcome.findings:
        print(finding.rule, finding.text, *finding.evidence, sep="\n    ")  # noqa: T201
    return [finding for finding in outcome.findings if finding.rule != "log"]


@pytest.mark.parametrize(
    ("shape", "seed", "faults"),
    [
        ("single", 1, ("kill", "flushall", "clock-skew", "half-open")),
        ("sentinel", 2, ("failover", "kill-pubsub", "drop")),
        ("cluster", 3, ("move-slot", "deploy")),
    ],
)
def test_a_schedule_without_findings(
    shape: str, seed: int, faults: tuple[str, ...], sets: RunningSets
) -> None:
    assert _findings_of(Job(seed, ROOT, shape, faults, CLIENTS), sets) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1001, 1013))
def test_more_schedules_without_findings(seed: int, sets: RunningSets) -> None:
    assert _findings_of(Job(seed, ROOT), sets) == []


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=_mutant_id)
def test_the_oracle_finds_a_mutation(mutant: Mutant, tmp_path: Path, sets: RunningSets) -> None:
    tree = mutant.make(tmp_path)
    rules = {
        finding.rule
        for finding in _findings_of(Job(mutant.seed, tree, "single", mutant.faults, CLIENTS), sets)
    }
    assert rules & mutant.rules, f"found {rules}, not {set(mutant.rules)}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=_mutant_id)
def test_a_mutation_fits_the_present_code(mutant: Mutant) -> None:
    text = (ROOT / "reactor" / mutant.file).read_text()
    assert mutant.before in text


def test_a_seed_gives_the_same_schedule_each_time() -> None:
    from tests.chaos.schedule import draw

    one, other = (draw(5, kinds=kinds()) for _ in range(2))
    assert (one.title, one.scripts, one.skews) == (other.title, other.scripts, other.skews)
    assert one.scripts != draw(6, kinds=kinds()).scripts
