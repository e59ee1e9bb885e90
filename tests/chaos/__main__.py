"""The chaos command: seeded schedules of faults on real nodes and servers, judged by what clients hear."""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.chaos.jobs import Order, play_all, play_one
from tests.chaos.run import Outcome
from tests.chaos.schedule import FAULTS
from tests.chaos.shapes import SHAPES, Sets
from tests.chaos.table import Report

ROOT = Path(__file__).parents[2]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--schedules", type=int, default=20, help="how many (20)")
    parser.add_argument("--seed", type=int, default=1, help="the first one's seed; the others follow it (1)")
    parser.add_argument("--only", type=int, help="play this seed alone, and print all that it has to say")
    parser.add_argument("--jobs", type=int, default=2, help="schedules at a time (2)")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="", help="servers of this shape alone")
    names = sorted(fault.name for fault in FAULTS)
    parser.add_argument(
        "--faults", default="", help=f"these instead of those drawn, with commas: {', '.join(names)}"
    )
    parser.add_argument("--people", type=int, default=0, help="so many instead of the number drawn")
    parser.add_argument(
        "--tree", type=Path, default=ROOT, help="the folder whose reactor/ the nodes run (this one)"
    )
    return parser.parse_args()


def main() -> int:
    """Exit code 1 on findings."""
    arguments = _arguments()
    faults = tuple(name for name in arguments.faults.split(",") if name)
    again = "scripts/chaos"
    if arguments.shape:
        again += f" --shape {arguments.shape}"
    if faults:
        again += f" --faults {arguments.faults}"
    report = Report(Console(highlight=False), again)
    report.header()
    began = time.monotonic()

    def order(seed: int) -> Order:
        return Order(seed, arguments.tree.resolve(), arguments.shape, faults, arguments.people)

    outcomes: list[Outcome] = []
    if arguments.only is not None:
        with Sets.opened() as sets:
            outcomes.append(play_one(order(arguments.only), sets))
        report.outcome(outcomes[0], whole_log=bool(outcomes[0].findings))
        return int(bool(outcomes[0].findings))
    seeds = range(arguments.seed, arguments.seed + arguments.schedules)
    for outcome in play_all([order(seed) for seed in seeds], arguments.jobs):
        outcomes.append(outcome)
        report.outcome(outcome)
    report.summary(outcomes, time.monotonic() - began)
    return int(any(outcome.findings for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
