"""Whether each address answers: those of the URL, and those that the servers behind it name."""

from collections.abc import Iterator

from reactor.doctor.checks.words import milliseconds
from reactor.doctor.deployment import Patient
from reactor.doctor.finding import Finding, Severity, Subject

_START = "start it, or take it out of the address"
_NEEDED = (
    "start it, or open the way: every node of reactor has to reach it, at the latest when it is promoted"
)
_NOT_NEEDED = "none, where only its primary has to reach it"


def reachable(patient: Patient) -> Iterator[Finding]:
    """Judge every address. A replica that only its primary needs to reach is worth a note."""
    for name, reason in sorted(patient.seeds.items()):
        yield _silent("address in the URL", name, reason, _START)
    for sentinel in patient.sentinels:
        if sentinel.unreachable:
            yield _silent("Sentinel", sentinel.name, sentinel.unreachable, _START)
        else:
            yield _subject("Sentinel", sentinel.name).ok("answers")
    for server in patient.servers:
        if not server.unreachable:
            found = f"answers in {milliseconds(server.answered_in)}"
            yield _subject(server.role, server.name).ok(found)
        elif patient.target.kind == "single" and server.role == "replica":
            yield _silent(server.role, server.name, server.unreachable, _NOT_NEEDED, "note")
        else:
            yield _silent(server.role, server.name, server.unreachable, _NEEDED)


def _silent(what: str, where: str, reason: str, mend: str, severity: Severity = "problem") -> Finding:
    return _subject(what, where).judged(severity, reason.partition("; ")[0], mend)


def _subject(what: str, where: str) -> Subject:
    return Subject("reachable", what, where, "an answer")
