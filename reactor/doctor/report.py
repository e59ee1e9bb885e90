"""Runs the examination: finds the servers, inspects them, and collects the findings of every check."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from reactor.doctor import checks
from reactor.doctor.deployment import Deployment
from reactor.doctor.discovery import discovered
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.inspect import inspect
from reactor.errors import ReactorError, unwrapped_errors
from reactor.settings import Settings


@dataclass(slots=True)
class DoctorReport:
    """The findings. complete: False where no server could be inspected."""

    findings: list[Finding] = field(default_factory=list)
    complete: bool = True

    @property
    def problems(self) -> list[Finding]:
        """What has to be fixed."""
        return [finding for finding in self.findings if finding.severity == "problem"]

    @property
    def exit_code(self) -> int:
        """For scripts: 0 no problem, 1 problems, 2 no server could be inspected."""
        return 2 if not self.complete else 1 if self.problems else 0


@asynccontextmanager
async def examined(settings: Settings) -> AsyncIterator[tuple[DoctorReport, Deployment | None]]:
    """Examine a Redis and the settings.

    The deployment stays connected for the duration of the block, so that fixes can be applied; it is None
    where no server could be reached.
    """
    about_settings = checks.check_settings(settings)
    try:
        with unwrapped_errors():
            async with discovered(settings) as deployment:
                await inspect(deployment)
                findings = [*checks.check_deployment(deployment), *about_settings]
                yield DoctorReport(findings, complete=bool(deployment.primaries)), deployment
                return
    except ReactorError as error:
        reason, _, fix = str(error).rstrip(".").rpartition("; ")
    connection = Subject("reachable", "Redis", wanted="an answer")
    unreachable = connection.problem(reason or fix, fix if reason else "")
    yield DoctorReport([unreachable, *about_settings], complete=False), None
