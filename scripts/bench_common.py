"""What the benchmarks share: the server they run on, facts about the machine, clocks, quantiles and files."""

import asyncio
import json
import math
import os
import platform
import re
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console

from reactor.errors import ReactorError
from reactor.presence.connect import open_data, parse_url
from reactor.presence.embedded import EmbeddedServer

ROOT = Path(__file__).resolve().parents[1]
console = Console()


# The server.


@dataclass(frozen=True)
class Bench:
    """A server to measure, and the namespace that is the benchmark's own on it."""

    url: str
    redis: Redis
    namespace: str
    owned: bool


@asynccontextmanager
async def bench_server(redis_url: str | None = None, program: Path | None = None) -> AsyncIterator[Bench]:
    """Give the server at `redis_url`, or one of our own: `program`, or the bundled one.

    A foreign server keeps what it has: the benchmark works in a namespace of its own there, and takes it and
    a changed `notify-keyspace-events` back at the end, however it ends.
    """
    if redis_url is None:
        async with (
            EmbeddedServer(binary=program) as server,
            await open_data(parse_url(server.url)) as redis,
        ):
            yield Bench(server.url, redis, "reactor", owned=True)
        return
    async with await open_data(parse_url(redis_url)) as redis:
        bench = Bench(redis_url, redis, f"bench-{secrets.token_hex(4)}", owned=False)
        events = await _events(redis)
        try:
            yield bench
        finally:
            with anyio.CancelScope(shield=True):
                console.print(f"[dim]taking {bench.namespace} out of the server again[/]")
                await remove_namespace(bench)
                if events is not None and events != await _events(redis):
                    await redis.config_set("notify-keyspace-events", events)


async def remove_namespace(bench: Bench) -> None:
    """Take away everything in the benchmark's namespace, and nothing else."""
    cursor = 0
    while True:
        cursor, keys = await bench.redis.scan(cursor, match=f"{{{bench.namespace}:*", count=2000)
        if keys:
            await bench.redis.unlink(*keys)
        if cursor == 0:
            return


async def _events(redis: Redis) -> str | None:
    with suppress(RedisError):
        found: dict[Any, Any] = await redis.config_get("notify-keyspace-events")
        for value in found.values():
            return value.decode() if isinstance(value, bytes) else str(value)
    return None


# Facts.


def machine_facts() -> dict[str, Any]:
    """Name what the figures depend on besides the server."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


async def server_facts(redis: Redis) -> dict[str, Any]:
    """Name the server: its kind, version, allocator."""
    info = await redis.info("server")
    memory = await redis.info("memory")
    valkey = info.get("valkey_version")
    return {
        "kind": "valkey" if valkey else "redis",
        "version": str(valkey or info["redis_version"]),
        "allocator": str(memory.get("mem_allocator", "unknown")),
        "hz": int(info.get("hz", 0)),
    }


def server_name(facts: dict[str, Any]) -> str:
    """Name a server for people."""
    return f"{'Valkey' if facts['kind'] == 'valkey' else 'Redis'} {facts['version']}"


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Name the commit that runs, with a `+` behind it when the package differs from it."""
    with suppress(OSError, subprocess.CalledProcessError):
        run = {"cwd": ROOT, "text": True, "stderr": subprocess.DEVNULL}
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], **run).strip()  # type: ignore[call-overload]
        changed = subprocess.check_output(  # type: ignore[call-overload]
            ["git", "status", "--porcelain", "--", "reactor", "scripts/*.py"], **run
        ).strip()
        return f"{commit}{'+' if changed else ''}"
    return None


# Clocks.


@dataclass(frozen=True)
class ClockOffset:
    """How far Redis's clock is ahead of this process's `time.time()`, and how far off that may be (seconds).

    A reply's time lies between the sending and the receipt, so the middle is wrong by half the round trip at
    most; the fastest of many round trips has the smallest error. On one machine both read the same clock.
    """

    offset: float
    error: float


async def measure_clock(redis: Redis, rounds: int = 300) -> ClockOffset:
    """Compare Redis's TIME with this process's clock."""
    best = ClockOffset(0.0, math.inf)
    for _ in range(rounds):
        sent = time.time()
        seconds, micros = await redis.time()
        received = time.time()
        if (error := (received - sent) / 2) < best.error:
            best = ClockOffset(seconds + micros / 1e6 - (sent + received) / 2, error)
    return best


# Figures.


def quantile(values: Sequence[float], share: float) -> float:
    """Give the value that `share` of all stay at or below (nearest rank); infinite ones count as values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


_NUMBERS = re.compile(r"\[[\s\d.,null-]*\]")
"""A list of figures, which is easier to read on one line."""


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write a result for other programs; infinite and missing figures become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(result), indent=1, allow_nan=False)
    path.write_text(_NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, ClockOffset):
        return _plain(asdict(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


# The process.


def allow_many_files() -> None:
    """Use as many sockets as this user may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_benchmark(main: Coroutine[Any, Any, None]) -> int:
    """Run to the end, or to Ctrl-C or SIGTERM, behind which everything is cleaned up; give the exit code."""
    allow_many_files()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return _run(main)
    except KeyboardInterrupt:
        console.print("[yellow]stopped, and cleaned up[/]")
        return 130


def _run(main: Coroutine[Any, Any, None]) -> int:
    code = 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except* ReactorError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"error: {error}", file=sys.stderr)
        code = 1
    return code
