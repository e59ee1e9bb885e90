"""Runs many schedules, several at the same time, each in a process with Redis servers of its own."""

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
from tests.chaos.run import Outcome, run_schedule
from tests.chaos.shapes import kinds
from tests.support.server_sets import RunningSets

_sets = RunningSets()
"""The server sets of this process; they end with it."""


@dataclass(frozen=True, slots=True)
class Job:
    """A schedule to run: its seed, the tree with the package, and what overrides the drawn values."""

    seed: int
    tree: Path
    shape: str = ""
    faults: tuple[str, ...] = ()
    clients: int = 0


def run_one(job: Job, sets: RunningSets | None = None) -> Outcome:
    """Run one schedule. An exception in the suite itself becomes a finding."""
    began = time.monotonic()
    plan = schedule.draw(job.seed, kinds=kinds(), shape=job.shape, only=job.faults, clients=job.clients)
    try:
        return uvloop.run(run_schedule(plan, sets or _sets, job.tree))
    except Exception as error:  # noqa: BLE001 - the other schedules continue
        finding = Finding(
            "error", str(error) or type(error).__name__, tuple(traceback.format_exc().splitlines())
        )
        return Outcome(
            plan.seed, plan.shape, plan.kind, tuple(fault.name for fault in plan.faults), plan.title,
            len(plan.scripts), 0, 0, 0.0, time.monotonic() - began, (finding,),
        )  # fmt: skip


def run_all(jobs: list[Job], processes: int) -> Iterator[Outcome]:
    """Run all schedules, `processes` at a time; yields each outcome when it is complete."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [pool.submit(run_one, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
