"""Which servers these are."""

from collections.abc import Iterator

from reactor.backend.clients import check_version
from reactor.doctor.deployment import Patient, Server
from reactor.doctor.finding import Finding, Subject
from reactor.errors import RedisTooOld

_WANTED = "7.0 or later"


def version(patient: Patient) -> Iterator[Finding]:
    """Judge the version of every server."""
    for server in patient.seen:
        subject = Subject("version", "version", server.name, _WANTED)
        if "redis_version" not in server.info:
            yield subject.note("not shown to this user", "+info for the user")
            continue
        try:
            check_version(server.info, patient.target)
        except RedisTooOld:
            yield subject.problem(name_of(server), "install a newer one")
        else:
            yield subject.ok(name_of(server))


def name_of(server: Server) -> str:
    """The server's kind and version."""
    valkey = server.info.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {server.info.get('redis_version', '?')}"
