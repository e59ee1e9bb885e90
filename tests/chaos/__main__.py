"""Runs seeded random schedules of faults against real nodes and Redis servers, and checks the outcome.

Every client records what it receives. After the faults, the messages and the contents of Redis are checked
against the rules in tests/chaos/oracle.py; each violation is printed as a finding, with evidence.
"""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.chaos.report import Report
from tests.chaos.run import Outcome
from tests.chaos.runner import Job, run_all, run_one
from tests.chaos.schedule import FAULTS
from tests.chaos.shapes import SHAPES
from tests.support.server_sets import RunningSets

ROOT = Path(__file__).parents[2]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schedules", type=int, default=20, help="number of schedules (default: 20)")
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the first schedule; each further one adds 1 (default: 1)"
    )
    parser.add_argument(
        "--only",
        type=int,
        help="run the schedule of this seed alone, and print the whole log if it has findings",
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="number of schedules that run at the same time (default: 2)"
    )
    parser.add_argument(
        "--shape",
        choices=sorted(SHAPES),
        default="",
        help="use this deployment of Redis for every schedule (default: drawn from the seed)",
    )
    names = sorted(fault.name for fault in FAULTS)
    parser.add_argument(
        "--faults",
        default="",
        help=f"use these faults, separated by commas, instead of drawn ones: {', '.join(names)}",
    )
    parser.add_argument(
        "--clients", type=int, default=0, help="number of clients (default: drawn, 100 to 160)"
    )
    parser.add_argument(
        "--tree",
        type=Path,
        default=ROOT,
        help="folder whose reactor/ package the nodes run (default: this one)",
    )
    return parser.parse_args()


def main() -> int:
    """Run the command; exit code 1 if there are findings."""
    arguments = _arguments()
    faults = tuple(name for name in arguments.faults.split(",") if name)
    rerun = "scripts/chaos"
    if arguments.shape:
        rerun += f" --shape {arguments.shape}"
    if faults:
        rerun += f" --faults {arguments.faults}"
    if arguments.clients:
        rerun += f" --clients {arguments.clients}"
    report = Report(Console(highlight=False), rerun)
    report.header()
    began = time.monotonic()

    def job(seed: int) -> Job:
        return Job(seed, arguments.tree.resolve(), arguments.shape, faults, arguments.clients)

    outcomes: list[Outcome] = []
    if arguments.only is not None:
        with RunningSets.opened() as sets:
            outcomes.append(run_one(job(arguments.only), sets))
        report.outcome(outcomes[0], whole_log=bool(outcomes[0].findings))
        return int(bool(outcomes[0].findings))
    seeds = range(arguments.seed, arguments.seed + arguments.schedules)
    for outcome in run_all([job(seed) for seed in seeds], arguments.jobs):
        outcomes.append(outcome)
        report.outcome(outcome)
    report.summary(outcomes, time.monotonic() - began)
    return int(any(outcome.findings for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
