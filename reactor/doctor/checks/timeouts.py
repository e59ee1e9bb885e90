"""How soon a dead link or a dead primary is noticed, measured by the lease and the grace."""

from collections.abc import Iterator

from reactor.doctor.checks.words import span
from reactor.doctor.deployment import Patient, Server
from reactor.doctor.finding import Finding, Subject
from reactor.settings import Settings

_QUICK, _HASTY = 5.0, 1.0
"""Seconds: a failover begun within is quick; one begun sooner takes a busy server for a dead one."""
_KEEPALIVE = 60
_IDLE = 60


def timeouts(patient: Patient) -> Iterator[Finding]:
    """Judge `timeout` and `tcp-keepalive` of each server, and after what time each failover begins."""
    for server in patient.seen:
        yield from _idle(server)
        yield from _keepalive(server)
        if patient.target.kind == "cluster":
            yield from _node_timeout(server, patient.settings)
    for sentinel in patient.sentinels:
        if "down-after-milliseconds" not in sentinel.master:
            continue
        command = ("SENTINEL", "SET", patient.target.master_name or "", "down-after-milliseconds", "5000")
        yield _failover(
            "down-after-milliseconds",
            int(sentinel.master["down-after-milliseconds"]),
            command,
            sentinel.name,
            patient.settings,
        )


def _idle(server: Server) -> Iterator[Finding]:
    seconds = server.number("timeout")
    if seconds is None:
        return
    if seconds == 0 or seconds >= _IDLE:
        idle = Subject("timeouts", "timeout", server.name, f"never, or {span(_IDLE)}")
        yield idle.ok("never" if seconds == 0 else span(seconds))
    else:
        idle = Subject("timeouts", "timeout", server.name, "never")
        found = f"idle connections are closed after {span(seconds)}"
        yield idle.note(found, ("CONFIG", "SET", "timeout", "0"))


def _keepalive(server: Server) -> Iterator[Finding]:
    seconds = server.number("tcp-keepalive")
    if seconds is None:
        return
    alive = Subject("timeouts", "tcp-keepalive", server.name, "on")
    if seconds:
        yield alive.ok(span(seconds))
    else:
        command = ("CONFIG", "SET", "tcp-keepalive", str(_KEEPALIVE))
        yield alive.note("off: connections of lost nodes stay for ever", command)


def _node_timeout(server: Server, settings: Settings) -> Iterator[Finding]:
    found = server.number("cluster-node-timeout")
    if found is not None:
        command = ("CONFIG", "SET", "cluster-node-timeout", "5000")
        yield _failover("cluster-node-timeout", found, command, server.name, settings)


def _failover(what: str, after: int, command: tuple[str, ...], where: str, settings: Settings) -> Finding:
    """Judge after what time (ms) a failover begins.

    Until it is done joins are refused, and no end by time counts: who drops meanwhile is listed for longer.
    """
    seconds = after / 1000
    quick = max(_QUICK, settings.lease)
    wanted = f"{span(_HASTY)} to {span(quick)} (lease {span(settings.lease)}, grace {span(settings.grace)})"
    subject = Subject("timeouts", what, where, wanted)
    if _HASTY <= seconds <= quick:
        return subject.ok(span(seconds))
    too_long = seconds > max(settings.grace, quick)
    harm = "a busy server is taken for a dead one" if seconds < _HASTY else "joins are refused for that long"
    return subject.judged("problem" if too_long else "note", f"{span(seconds)}: {harm}", command)
