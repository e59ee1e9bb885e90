"""What a restart of the server costs."""

from collections.abc import Iterator

from reactor.doctor.deployment import Patient, Server
from reactor.doctor.finding import Finding, Subject

_NONE = "none: a restart forgets departures and rules; members come back with their nodes"
_SNAPSHOTS = "snapshots: a restart goes back to the last one; the nodes put right the rest"
_LOG = "a log of all writes (appendfsync {fsync}): a restart has nearly all"
_MEND = 'see the server\'s log and its disk; without need of it: CONFIG SET save ""'
_UNKNOWN = "not shown to this user"


def persistence(patient: Patient) -> Iterator[Finding]:
    """Say what is kept, and judge whether saving works: where it fails, Redis refuses all writes."""
    for server in patient.seen:
        yield Subject("persistence", "persistence", server.name, "any").ok(_meaning(server))
        for field, what in (
            ("rdb_last_bgsave_status", "last snapshot"),
            ("aof_last_write_status", "last log write"),
        ):
            if str(server.info.get(field, "ok")) == "ok":
                continue
            stops = server.setting("stop-writes-on-bgsave-error") != "no" or field.startswith("aof")
            harm = "all writes are refused" if stops else "it is older than it should be"
            yield Subject("persistence", what, server.name, "done").judged(
                "problem" if stops else "note", f"failed: {harm}", _MEND
            )


def _meaning(server: Server) -> str:
    log = server.info.get("aof_enabled")
    save = server.setting("save")
    if log or server.setting("appendonly") == "yes":
        return _LOG.format(fsync=server.setting("appendfsync") or "not shown")
    if save is None:
        return _UNKNOWN
    return _SNAPSHOTS if save else _NONE
