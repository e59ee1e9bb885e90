"""Loaded by the node's interpreter at its start: lets the suite inspect the process and set its clock.

The node itself is `reactor serve`, unchanged. On SIGUSR2 it writes the names of its asyncio tasks to the file
that CHAOS_PROBE names. On SIGUSR1 it is to kill itself at the point that CHAOS_PROBE.die names: `index-join`,
once a room is in the index of people and before its join is sent, or `departure-index`, before a departure is
taken into the index. When the process got no CPU time for more than STALL seconds, begin and end (ms since
1970) are appended to CHAOS_PROBE.stalls. The wall clock is skewed by the seconds in the file CHAOS_SKEW (a
double), which may change at any time.
"""

import asyncio
import json
import mmap
import os
import signal
import struct
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

ARRIVES_WITHIN = 0.05
"""Seconds until a call that was sent before has reached Redis."""
TICK, STALL = 0.1, 0.5
"""Seconds between two readings of the clock, and between which the process counts as stalled."""


def _skew(path: str) -> None:
    with Path(path).open("rb") as file:
        seconds = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    read, real, real_ns = struct.Struct("d").unpack_from, time.time, time.time_ns
    time.time = lambda: real() + read(seconds)[0]
    time.time_ns = lambda: real_ns() + int(read(seconds)[0] * 1e9)


def _probe(path: str) -> None:
    def write_tasks(_number: int, _frame: Any) -> None:
        tasks = [task for task in asyncio.all_tasks(asyncio.get_running_loop()) if not task.done()]
        names = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
        new = Path(f"{path}.new")
        new.write_text(json.dumps(names))
        new.replace(path)

    signal.signal(signal.SIGUSR2, write_tasks)


def _die_at(path: str) -> None:
    """Have the process kill itself at the next call of one of the package's functions.

    It notes when (ms since 1970): the process of the clients may be busy and learn of it later.
    """

    def prepare(_number: int, _frame: Any) -> None:
        from reactor.presence.people import PeopleStore
        from reactor.presence.store import Store

        async def die(*_args: Any, **_fields: Any) -> None:
            await asyncio.sleep(ARRIVES_WITHIN)
            real = time.clock_gettime(time.CLOCK_REALTIME)  # which is not skewed
            Path(path).with_suffix(".died").write_text(f"{real * 1000:.0f}")
            os.kill(os.getpid(), signal.SIGKILL)

        if Path(path).read_text() == "index-join":
            Store.join = die  # type: ignore[method-assign, assignment]
        else:
            PeopleStore.exit = die  # type: ignore[method-assign, assignment]

    signal.signal(signal.SIGUSR1, prepare)


def _note_stalls(path: str) -> None:
    clock = time.time  # the real one, before it is skewed

    def watch() -> None:
        before = clock()
        while True:
            time.sleep(TICK)
            now = clock()
            if now - before > STALL:
                with Path(path).open("a") as file:
                    file.write(f"{before * 1000:.0f} {now * 1000:.0f}\n")
            before = now

    threading.Thread(target=watch, daemon=True).start()


if "CHAOS_PROBE" in os.environ:
    _note_stalls(os.environ["CHAOS_PROBE"] + ".stalls")
if "CHAOS_SKEW" in os.environ:
    _skew(os.environ["CHAOS_SKEW"])
if "CHAOS_PROBE" in os.environ:
    _probe(os.environ["CHAOS_PROBE"])
    _die_at(os.environ["CHAOS_PROBE"] + ".die")
