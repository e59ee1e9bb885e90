"""Whether each address answers: those of the URL, and those that the servers behind it name."""

from collections.abc import Iterator

from reactor.doctor.checks.words import milliseconds
from reactor.doctor.finding import Finding
from reactor.doctor.patient import Patient


def reachable(patient: Patient) -> Iterator[Finding]:
    """Judge every address. A replica that only its primary needs to reach is worth a note."""
    wanted = "an answer"
    for name, reason in sorted(patient.seeds.items()):
        yield Finding(
            check="reachable",
            what="address in the URL",
            found=reason,
            wanted=wanted,
            mend="start it, or take it out of the address",
            severity="problem",
            where=name,
        )
    for sentinel in patient.sentinels:
        yield Finding(
            check="reachable",
            what="Sentinel",
            where=sentinel.name,
            wanted=wanted,
            found=sentinel.unreachable or "answers",
            severity="problem" if sentinel.unreachable else "ok",
            mend="start it, or take it out of the address" if sentinel.unreachable else "",
        )
    for server in patient.servers:
        if server.unreachable:
            needed = patient.target.kind != "single"
            yield Finding(
                check="reachable",
                what=server.role,
                found=server.unreachable,
                wanted=wanted,
                where=server.name,
                mend="every node of reactor has to reach it: it may be promoted"
                if needed
                else "none, where it is reached by its primary alone",
                severity="problem" if needed else "note",
            )
        else:
            found = f"answers in {milliseconds(server.answered_in)}"
            yield Finding(check="reachable", what=server.role, found=found, wanted=wanted, where=server.name)
