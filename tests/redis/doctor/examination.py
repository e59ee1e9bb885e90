"""What the tests of the doctor share: an examination, and the proof that it left nothing behind."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from reactor.backend.clients import client_at, close_client
from reactor.backend.target import parse_url
from reactor.doctor.apply import Done, apply, fixes_of
from reactor.doctor.deployment import Patient, Server
from reactor.doctor.examine import Report, examined
from reactor.doctor.finding import Finding
from reactor.settings import Settings
from tests.support import servers


class Found:
    """A report that tests ask by the names of checks."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def all(self, check: str) -> list[Finding]:
        found = [finding for finding in self.report.findings if finding.check == check]
        assert found, f"no finding of {check} among {self.report.findings}"
        return found

    def one(self, check: str, what: str = "", where: str = "") -> Finding:
        """The one finding of a check; of some, the one about that at that place."""
        found = [
            finding
            for finding in self.all(check)
            if finding.what.startswith(what) and where in (finding.where, "")
        ]
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


async def treat(url: str, **options: Any) -> list[Done]:
    """Set all that may be set; nothing may be refused."""
    async with examined(Settings(redis_url=url, **options)) as (report, patient):
        assert patient is not None
        done = await apply(patient, fixes_of(report.findings))
    assert done
    assert not [one for one in done if one.refused]
    return done


@asynccontextmanager
async def seen(url: str) -> AsyncIterator[Server]:
    """One server for a single look at it."""
    target = parse_url(url)
    server = Server("it", target.hosts[0], client_at(target, target.hosts[0]))
    try:
        yield server
    finally:
        await close_client(server.client)


@contextmanager
def untouched(*on: servers.Server) -> Iterator[None]:
    """The block leaves no key, no subscription, no script and no connection."""
    before = [_traces(server) for server in on]
    yield
    for server, were in zip(on, before, strict=True):
        deadline = 100
        while (now := _traces(server)) != were and deadline:
            deadline -= 1  # a connection that we closed may still be counted for a moment
        assert now == were, f"{now} was {were}"


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


__all__ = ["Found", "Patient", "examine", "flags", "seen", "treat", "untouched"]
