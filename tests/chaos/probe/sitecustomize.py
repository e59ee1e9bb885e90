"""Loaded by a node's interpreter at its start: lets the suite look into it, and set its clock.

The node itself is `reactor serve`, unchanged. On SIGUSR2 it writes what asyncio tasks it has to the file
that CHAOS_PROBE names. Each time that the machine gave the process no time for long, beginning and end (ms
since 1970) go into CHAOS_PROBE.gaps: to others that is a freeze like any other. Its wall clock is off by the
seconds that the file CHAOS_SKEW holds (a double), at any time.
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

TICK, GAP = 0.1, 0.5
"""Seconds between two looks at the clock, and what is too long."""


def _skew(path: str) -> None:
    with Path(path).open("rb") as file:
        seconds = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    read, real, real_ns = struct.Struct("d").unpack_from, time.time, time.time_ns
    time.time = lambda: real() + read(seconds)[0]
    time.time_ns = lambda: real_ns() + int(read(seconds)[0] * 1e9)


def _probe(path: str) -> None:
    def tell(_number: int, _frame: Any) -> None:
        tasks = [task for task in asyncio.all_tasks(asyncio.get_running_loop()) if not task.done()]
        names = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
        new = Path(f"{path}.new")
        new.write_text(json.dumps(names))
        new.replace(path)

    signal.signal(signal.SIGUSR2, tell)


def _note_gaps(path: str) -> None:
    clock = time.time  # before it is set off

    def watch() -> None:
        before = clock()
        while True:
            time.sleep(TICK)
            now = clock()
            if now - before > GAP:
                with Path(path).open("a") as file:
                    file.write(f"{before * 1000:.0f} {now * 1000:.0f}\n")
            before = now

    threading.Thread(target=watch, daemon=True).start()


if "CHAOS_PROBE" in os.environ:
    _note_gaps(os.environ["CHAOS_PROBE"] + ".gaps")
if "CHAOS_SKEW" in os.environ:
    _skew(os.environ["CHAOS_SKEW"])
if "CHAOS_PROBE" in os.environ:
    _probe(os.environ["CHAOS_PROBE"])
