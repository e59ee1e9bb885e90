"""Many schedules, some at a time, each process with servers of its own."""

import multiprocessing
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.chaos import schedule
from tests.chaos.history import Finding
from tests.chaos.run import Outcome, play
from tests.chaos.shapes import Sets, kinds

_sets = Sets()
"""Of this process; they end with it."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to play: a seed, and what of it is laid down beforehand."""

    seed: int
    tree: Path
    shape: str = ""
    faults: tuple[str, ...] = ()
    people: int = 0


def play_one(order: Order, sets: Sets | None = None) -> Outcome:
    """Play one schedule; a mistake of the suite itself is a finding, too."""
    began = time.monotonic()
    plan = schedule.draw(order.seed, kinds=kinds(), shape=order.shape, only=order.faults, people=order.people)
    try:
        return uvloop.run(play(plan, sets or _sets, order.tree))
    except Exception as error:  # noqa: BLE001 - the others go on
        finding = Finding(
            "error", str(error) or type(error).__name__, tuple(traceback.format_exc().splitlines())
        )
        return Outcome(
            plan.seed, plan.shape, plan.kind, tuple(fault.name for fault in plan.faults), plan.title,
            len(plan.scripts), 0, 0, 0.0, time.monotonic() - began, (finding,),
        )  # fmt: skip


def play_all(orders: list[Order], processes: int) -> Iterator[Outcome]:
    """Play all, `processes` at a time; each outcome as it comes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [pool.submit(play_one, order) for order in orders]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
