"""What a restart of the server costs."""

from collections.abc import Iterator

from reactor.doctor.finding import Finding
from reactor.doctor.patient import Patient, Server

_NONE = "none: a restart forgets departures and rules; members come back with their nodes"
_SNAPSHOTS = "snapshots: a restart goes back to the last one; the nodes put right the rest"
_LOG = "a log of all writes (appendfsync {fsync}): a restart has nearly all"
_UNKNOWN = "not shown to this user"


def persistence(patient: Patient) -> Iterator[Finding]:
    """Say what is kept, and judge whether saving works: where it fails, Redis refuses all writes."""
    for server in patient.seen:
        yield Finding(
            check="persistence",
            what="persistence",
            found=_meaning(server),
            wanted="any",
            where=server.name,
        )
        for field, what in (
            ("rdb_last_bgsave_status", "last snapshot"),
            ("aof_last_write_status", "last log write"),
        ):
            if str(server.info.get(field, "ok")) == "ok":
                continue
            stops = server.setting("stop-writes-on-bgsave-error") != "no" or field.startswith("aof")
            harm = "all writes are refused" if stops else "it is older than it should be"
            yield Finding(
                check="persistence",
                what=what,
                found=f"failed: {harm}",
                wanted="done",
                mend='see the server\'s log and its disk; without need of it: CONFIG SET save ""',
                severity="problem" if stops else "note",
                where=server.name,
            )


def _meaning(server: Server) -> str:
    log = server.info.get("aof_enabled")
    save = server.setting("save")
    if log or server.setting("appendonly") == "yes":
        return _LOG.format(fsync=server.setting("appendfsync") or "not shown")
    if save is None:
        return _UNKNOWN
    return _SNAPSHOTS if save else _NONE
