"""Which servers these are."""

from collections.abc import Iterator

from reactor.doctor.finding import Finding
from reactor.doctor.patient import Patient, Server
from reactor.errors import RedisTooOld
from reactor.presence.connect import check_version

_WANTED = "7.0 or later"


def version(patient: Patient) -> Iterator[Finding]:
    """Judge the version of every server."""
    for server in patient.seen:
        if "redis_version" not in server.info:
            yield Finding(
                check="version",
                what="version",
                found="not shown to this user",
                wanted=_WANTED,
                mend="+info for the user",
                severity="note",
                where=server.name,
            )
            continue
        try:
            check_version(server.info, patient.target)
        except RedisTooOld:
            yield Finding(
                check="version",
                what="version",
                found=name_of(server),
                wanted=_WANTED,
                mend="install a newer one",
                severity="problem",
                where=server.name,
            )
        else:
            yield Finding(
                check="version", what="version", found=name_of(server), wanted=_WANTED, where=server.name
            )


def name_of(server: Server) -> str:
    """The server's kind and version."""
    valkey = server.info.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {server.info.get('redis_version', '?')}"
