"""Whether each primary accepts writes, and only while they are replicated."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding, Subject

_DIRECTIVE = "min-replicas-to-write"


@deployment_check(order=70)
def writes(deployment: Deployment) -> Iterator[Finding]:
    """Judge the result of a write, and how many replicas a primary requires."""
    for server in deployment.primaries:
        if server.expiry is not None and server.expiry.refused and server.expiry.failed_command == "SET":
            write = Subject("writes", "a write", server.name, "accepted")
            yield write.problem(f"refused: {server.expiry.refused}", _fix(server.expiry.refused))
        required, connected = server.number(_DIRECTIVE), server.info.get("connected_slaves")
        if required is not None and connected is not None:
            yield _judge(server, required, int(connected))


def _judge(server: InspectedServer, required: int, connected: int) -> Finding:
    if required > connected:
        subject = Subject("writes", _DIRECTIVE, server.name, f"at most {connected}")
        fix = f"start the replicas; or CONFIG SET {_DIRECTIVE} {connected}"
        return subject.problem(f"{required}, but {connected} replicas", fix)
    if required == 0 and connected > 1:
        return Subject("writes", _DIRECTIVE, server.name, "1").note(
            "0: a primary that is cut off accepts writes that a failover discards",
            f"CONFIG SET {_DIRECTIVE} 1 (on replicas, too: they may be promoted)",
        )
    wanted = "0" if connected == 0 else f"up to {connected}" if connected == 1 else "1 or more"
    return Subject("writes", _DIRECTIVE, server.name, wanted).ok(str(required))


def _fix(error: str) -> str:
    if "NOREPLICAS" in error or "good replicas" in error:
        return f"start the replicas; or CONFIG SET {_DIRECTIVE} 0"
    if "permission" in error.lower():
        return "fix the permissions above"
    if "OOM" in error or "maxmemory" in error:
        return "raise maxmemory, or move other data elsewhere"
    if "MISCONF" in error or "persist" in error.lower() or "snapshot" in error.lower():
        return "check the server's log and its disk"
    return "check the server's log"
