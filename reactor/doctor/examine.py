"""Looks at everything, then judges it, check by check."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from redis.crc import key_slot

from reactor.backend.clients import CONNECTION_ERRORS
from reactor.doctor.checks.access import access
from reactor.doctor.checks.allowed import allowed
from reactor.doctor.checks.buffers import buffers
from reactor.doctor.checks.clocks import clocks
from reactor.doctor.checks.coverage import coverage, sentinels
from reactor.doctor.checks.events import events
from reactor.doctor.checks.expiry import expiry
from reactor.doctor.checks.foreign import foreign
from reactor.doctor.checks.hidden import hidden
from reactor.doctor.checks.memory import memory
from reactor.doctor.checks.persistence import persistence
from reactor.doctor.checks.reachable import reachable
from reactor.doctor.checks.replicas import replicas
from reactor.doctor.checks.settings import settings as judge_settings
from reactor.doctor.checks.timeouts import timeouts
from reactor.doctor.checks.version import version
from reactor.doctor.checks.writes import writes
from reactor.doctor.deployment import Patient, Server
from reactor.doctor.door import try_door
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.inspect import admitted
from reactor.doctor.keyspace import Known, look_through
from reactor.doctor.look import look, said
from reactor.doctor.probe import probe
from reactor.doctor.trials import try_rights
from reactor.errors import ReactorError, unwrapped_errors
from reactor.presence.keys import SHARDS, shard_prefix
from reactor.settings import Settings

CHECKS = (
    reachable,
    version,
    coverage,
    sentinels,
    allowed,
    access,
    hidden,
    events,
    expiry,
    writes,
    memory,
    buffers,
    persistence,
    replicas,
    clocks,
    timeouts,
    foreign,
)
"""In the order of the report."""


@dataclass(slots=True)
class Report:
    """What was found. `looked` is False where no server could be looked at."""

    findings: list[Finding] = field(default_factory=list)
    looked: bool = True

    @property
    def problems(self) -> list[Finding]:
        """What has to be mended."""
        return [finding for finding in self.findings if finding.severity == "problem"]

    @property
    def exit_code(self) -> int:
        """For scripts: 0 fine, 1 problems, 2 could not look."""
        return 2 if not self.looked else 1 if self.problems else 0


@asynccontextmanager
async def examined(settings: Settings) -> AsyncIterator[tuple[Report, Patient | None]]:
    """Examine a Redis and the settings; the patient stays connected meanwhile, None where nobody answered."""
    about_settings = list(judge_settings(settings))
    try:
        with unwrapped_errors():
            async with admitted(settings) as patient:
                await _look_at(patient)
                found = [finding for check in CHECKS for finding in check(patient)]
                yield Report([*found, *about_settings], looked=bool(patient.primaries)), patient
                return
    except ReactorError as error:
        reason, _, mend = str(error).rstrip(".").rpartition("; ")
    yield Report([_nobody(reason or mend, mend if reason else ""), *about_settings], looked=False), None


def _nobody(found: str, mend: str) -> Finding:
    return Subject("reachable", "Redis", wanted="an answer").problem(found, mend)


async def _look_at(patient: Patient) -> None:
    async with anyio.create_task_group() as tasks:
        for server in patient.seen:
            tasks.start_soon(_look_if_it_stays, patient, server, Known(patient.settings.namespace))


async def _look_if_it_stays(patient: Patient, server: Server, known: Known) -> None:
    try:
        await _look_at_one(patient, server, known)
    except CONNECTION_ERRORS as error:
        server.unreachable = f"went away: {said(error) or type(error).__name__}"


async def _look_at_one(patient: Patient, server: Server, known: Known) -> None:
    namespace, database = patient.settings.namespace, patient.target.db
    await look(server)
    await try_door(server, patient.target, server.address)
    await try_rights(server, namespace, database, cluster=patient.target.kind == "cluster")
    if server.role == "replica":
        return
    for prefix in _prefixes_on(patient, server):
        await probe(server, prefix, database)
        break
    await look_through(server, known)


def _prefixes_on(patient: Patient, server: Server) -> Iterator[str]:
    """The shards that live on a server."""
    for shard in range(SHARDS):
        prefix = shard_prefix(patient.settings.namespace, shard)
        if patient.slots is None or patient.slots.owner_of(key_slot(prefix.encode())) == server.name:
            yield prefix
