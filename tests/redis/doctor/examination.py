"""Helpers for the tests of the doctor: run an examination, and prove that it left nothing behind."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from reactor.backend.clients import client_at, close_client
from reactor.backend.target import parse_url
from reactor.doctor.apply import AppliedFix, apply, commands_of
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding
from reactor.doctor.report import DoctorReport, examined
from reactor.settings import Settings
from tests.support import servers


class Found:
    """A report whose findings are looked up by the names of checks."""

    def __init__(self, report: DoctorReport) -> None:
        self.report = report

    def all(self, check: str, what: str = "") -> list[Finding]:
        """The findings of a check whose `what` starts so: one at least."""
        found = [finding for finding in self.report.findings if finding.check == check]
        found = [finding for finding in found if finding.what.startswith(what)]
        assert found, f"no finding of {check} about {what} among {self.report.findings}"
        return found

    def one(self, check: str, what: str = "", where: str = "") -> Finding:
        """The only finding of a check whose `what` starts so, at this server."""
        found = [finding for finding in self.all(check, what) if where in (finding.where, "")]
        assert len(found) == 1, found
        return found[0]

    @property
    def problems(self) -> list[str]:
        return sorted({finding.check for finding in self.report.problems})

    @property
    def notes(self) -> list[str]:
        return sorted({finding.check for finding in self.report.findings if finding.severity == "note"})


async def examine(url: str, **options: Any) -> Found:
    async with examined(Settings(redis_url=url, **options)) as (report, _):
        return Found(report)


async def apply_fixes(url: str, **options: Any) -> list[AppliedFix]:
    """Apply all commands that the findings propose; none may be refused."""
    async with examined(Settings(redis_url=url, **options)) as (report, deployment):
        assert deployment is not None
        applied = await apply(deployment, commands_of(report.findings))
    assert applied
    assert not [fix for fix in applied if fix.refused]
    return applied


@asynccontextmanager
async def inspected_server(url: str) -> AsyncIterator[InspectedServer]:
    """One server, of which nothing is collected yet."""
    target = parse_url(url)
    server = InspectedServer("server", target.hosts[0], client_at(target, target.hosts[0]))
    try:
        yield server
    finally:
        await close_client(server.client)


@contextmanager
def untouched(*on: servers.Server) -> Iterator[None]:
    """Assert that the block leaves no key, no subscription, no script and no connection."""
    before = [_traces(server) for server in on]
    yield
    for server, expected in zip(on, before, strict=True):
        deadline = 100
        while (now := _traces(server)) != expected and deadline:
            deadline -= 1  # a closed connection may still be counted for a moment
        assert now == expected, f"{now} was {expected}"


def flags(server: servers.Server) -> set[str]:
    """The server's notify-keyspace-events."""
    return set(str(server.control.config_get("notify-keyspace-events")["notify-keyspace-events"]))


def _traces(server: servers.Server) -> dict[str, Any]:
    control = server.control
    memory: Any = control.info("memory")
    clients: Any = control.info("clients")
    return {
        "keys": control.dbsize(),
        "channels": control.pubsub_channels(),
        "scripts": memory["number_of_cached_scripts"],
        "clients": clients["connected_clients"],
    }


__all__ = ["Deployment", "Found", "apply_fixes", "examine", "flags", "inspected_server", "untouched"]
