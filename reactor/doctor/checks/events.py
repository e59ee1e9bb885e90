"""Whether each server says when a key expires.

A replica needs it too, for the day on which it is promoted.
"""

from collections.abc import Iterator

from reactor.doctor.finding import Finding, Fix, command_line
from reactor.doctor.patient import Patient, Server
from reactor.presence.connect import with_expired

NAME = "notify-keyspace-events"
_WANTED = "E and x (or A)"


def events(patient: Patient) -> Iterator[Finding]:
    """Judge the flags of every server; where they are not shown, what was heard."""
    for server in patient.seen:
        flags = server.setting(NAME)
        yield _by_proof(server) if flags is None else _by_flags(server, flags)


def _by_flags(server: Server, flags: str) -> Finding:
    better, shown = with_expired(flags), flags or '"" (nothing)'
    if better == flags:
        return Finding(check="events", what=NAME, found=shown, wanted=_WANTED, where=server.name)
    command = ("CONFIG", "SET", NAME, better)
    return Finding(
        check="events",
        what=NAME,
        found=shown,
        wanted=_WANTED,
        mend=command_line(*command),
        severity="problem",
        where=server.name,
        fix=Fix(where=server.name, command=command),
    )


def _by_proof(server: Server) -> Finding:
    hidden = "not shown" if "CONFIG GET" in server.refused else "not there"
    mend = f'"{NAME} Ex" in redis.conf, or in the parameters of a managed service'
    if server.expiry is None or server.expiry.refused:
        return Finding(
            check="events",
            what=NAME,
            found=f"{hidden}, and nothing here proves it",
            wanted=_WANTED,
            mend=mend,
            severity="note",
            where=server.name,
        )
    if server.expiry.touched is not None:
        return Finding(
            check="events", what=NAME, found=f"{hidden}, but events come", wanted=_WANTED, where=server.name
        )
    return Finding(
        check="events",
        what=NAME,
        found=f"{hidden}, and no event comes",
        wanted=_WANTED,
        mend=mend,
        severity="problem",
        where=server.name,
    )
