"""Whether each server says when a key expires.

A replica needs it too, for the day on which it is promoted.
"""

from collections.abc import Iterator

from reactor.backend.clients import with_expired
from reactor.doctor.deployment import Patient, Server
from reactor.doctor.finding import Finding, Subject

NAME = "notify-keyspace-events"


def events(patient: Patient) -> Iterator[Finding]:
    """Judge the flags of every server; where they are not shown, what was heard."""
    for server in patient.seen:
        flags = server.setting(NAME)
        yield _by_proof(server) if flags is None else _by_flags(server, flags)


def _by_flags(server: Server, flags: str) -> Finding:
    better = with_expired(flags)
    return _subject(server).judged(
        "ok" if better == flags else "problem", flags or '"" (nothing)', ("CONFIG", "SET", NAME, better)
    )


def _by_proof(server: Server) -> Finding:
    flags = _subject(server)
    hidden = "not shown" if "CONFIG GET" in server.refused else "not there"
    mend = f'"{NAME} Ex" in redis.conf, or in the parameters of a managed service'
    if server.expiry is None or server.expiry.refused:
        return flags.note(f"{hidden}, and nothing here proves it", mend)
    if server.expiry.touched is not None:
        return flags.ok(f"{hidden}, but events come")
    return flags.problem(f"{hidden}, and no event comes", mend)


def _subject(server: Server) -> Subject:
    return Subject("events", NAME, server.name, "E and x (or A)")
