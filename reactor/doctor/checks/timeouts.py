"""How soon a dead connection or a dead primary is noticed, compared with the lease and the grace."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.units import span
from reactor.settings import Settings

_SLOW_FAILOVER, _HASTY_FAILOVER = 5.0, 1.0
"""Seconds of silence after which a failover should begin at the latest, and at the earliest."""
_KEEPALIVE = 60
_MIN_TIMEOUT = 60


@deployment_check(order=130)
def timeouts(deployment: Deployment) -> Iterator[Finding]:
    """Judge `timeout` and `tcp-keepalive` of each server, and how soon each failover begins."""
    for server in deployment.reachable:
        yield from _idle_timeout(server)
        yield from _keepalive(server)
        if deployment.target.kind == "cluster":
            yield from _node_timeout(server, deployment.settings)
    for sentinel in deployment.sentinels:
        if "down-after-milliseconds" not in sentinel.master:
            continue
        primary = deployment.target.master_name or ""
        yield _failover(
            "down-after-milliseconds",
            int(sentinel.master["down-after-milliseconds"]),
            ("SENTINEL", "SET", primary, "down-after-milliseconds", "5000"),
            sentinel.name,
            deployment.settings,
        )


def _idle_timeout(server: InspectedServer) -> Iterator[Finding]:
    seconds = server.number("timeout")
    if seconds is None:
        return
    if seconds == 0 or seconds >= _MIN_TIMEOUT:
        subject = Subject("timeouts", "timeout", server.name, f"never, or {span(_MIN_TIMEOUT)}")
        yield subject.ok("never" if seconds == 0 else span(seconds))
    else:
        subject = Subject("timeouts", "timeout", server.name, "never")
        found = f"idle connections are closed after {span(seconds)}"
        yield subject.note(found, ("CONFIG", "SET", "timeout", "0"))


def _keepalive(server: InspectedServer) -> Iterator[Finding]:
    seconds = server.number("tcp-keepalive")
    if seconds is None:
        return
    subject = Subject("timeouts", "tcp-keepalive", server.name, "on")
    if seconds:
        yield subject.ok(span(seconds))
    else:
        command = ("CONFIG", "SET", "tcp-keepalive", str(_KEEPALIVE))
        yield subject.note("off: connections of crashed machines are never closed", command)


def _node_timeout(server: InspectedServer, settings: Settings) -> Iterator[Finding]:
    milliseconds = server.number("cluster-node-timeout")
    if milliseconds is not None:
        command = ("CONFIG", "SET", "cluster-node-timeout", "5000")
        yield _failover("cluster-node-timeout", milliseconds, command, server.name, settings)


def _failover(
    what: str, milliseconds: int, command: tuple[str, ...], where: str, settings: Settings
) -> Finding:
    """Judge after how many milliseconds of silence a failover begins.

    Until it has ended joins are refused and expiry is suspended: disconnected members stay listed longer.
    """
    seconds = milliseconds / 1000
    longest = max(_SLOW_FAILOVER, settings.lease)
    limits = f"(lease {span(settings.lease)}, grace {span(settings.grace)})"
    subject = Subject("timeouts", what, where, f"{span(_HASTY_FAILOVER)} to {span(longest)} {limits}")
    if _HASTY_FAILOVER <= seconds <= longest:
        return subject.ok(span(seconds))
    hasty = seconds < _HASTY_FAILOVER
    harm = "a busy server is taken for a dead one" if hasty else "joins are refused for that long"
    severe = seconds > max(settings.grace, longest)
    return subject.rated("problem" if severe else "note", f"{span(seconds)}: {harm}", command)
