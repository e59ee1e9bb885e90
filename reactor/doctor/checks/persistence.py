"""What a restart of a server loses, and whether saving works."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding, Subject

_NONE = "none: a restart loses bans, rooms' own settings, last seen and departures; members return"
_SNAPSHOTS = "snapshots: a restart loads the last one; the nodes correct the rest"
_LOG = "append-only file (appendfsync {fsync}): a restart loses next to nothing"
_FIX = 'check the server\'s log and its disk; if nothing has to be saved: CONFIG SET save ""'
_UNKNOWN = "not shown to this user"


@deployment_check(order=100)
def persistence(deployment: Deployment) -> Iterator[Finding]:
    """Say what is saved, and judge whether saving works: where it fails, Redis refuses all writes."""
    for server in deployment.reachable:
        yield Subject("persistence", "persistence", server.name, "any").ok(_describe(server))
        for field, what in (
            ("rdb_last_bgsave_status", "last snapshot"),
            ("aof_last_write_status", "last write to the append-only file"),
        ):
            if str(server.info.get(field, "ok")) == "ok":
                continue
            stops = server.setting("stop-writes-on-bgsave-error") != "no" or field.startswith("aof")
            harm = "all writes are refused" if stops else "a restart loads an older one"
            yield Subject("persistence", what, server.name, "succeeded").rated(
                "problem" if stops else "note", f"failed: {harm}", _FIX
            )


def _describe(server: InspectedServer) -> str:
    if server.info.get("aof_enabled") or server.setting("appendonly") == "yes":
        return _LOG.format(fsync=server.setting("appendfsync") or "not shown")
    save = server.setting("save")
    if save is None:
        return _UNKNOWN
    return _SNAPSHOTS if save else _NONE
