"""Facts that the figures depend on besides the server: the machine and the measured commit."""

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.benchmarks.running import ROOT


def machine_facts() -> dict[str, Any]:
    """Return the facts about the machine and the commit."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": _system(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def _system() -> str:
    """Return the system and its release, `Linux 6.18`: what follows names the machine's own build of it."""
    return f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit, with a trailing `+` if the package has uncommitted changes."""
    with suppress(OSError, subprocess.CalledProcessError):
        run = {"cwd": ROOT, "text": True, "stderr": subprocess.DEVNULL}
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], **run).strip()  # type: ignore[call-overload]
        changed = subprocess.check_output(  # type: ignore[call-overload]
            ["git", "status", "--porcelain", "--", "reactor", "scripts/*.py"], **run
        ).strip()
        return f"{commit}{'+' if changed else ''}"
    return None
