"""Whether every server publishes `expired` events. A replica needs that too: it may be promoted."""

from collections.abc import Iterator

from reactor.backend.clients import with_expired
from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding, Subject

_DIRECTIVE = "notify-keyspace-events"


@deployment_check(order=50)
def events(deployment: Deployment) -> Iterator[Finding]:
    """Judge the flags of every server; where they are not shown, whether a real event arrived."""
    for server in deployment.reachable:
        flags = server.setting(_DIRECTIVE)
        yield _by_event(server) if flags is None else _by_flags(server, flags)


def _by_flags(server: InspectedServer, flags: str) -> Finding:
    needed = with_expired(flags)
    return _subject(server).rated(
        "ok" if needed == flags else "problem",
        flags or '"" (nothing)',
        ("CONFIG", "SET", _DIRECTIVE, needed),
    )


def _by_event(server: InspectedServer) -> Finding:
    subject = _subject(server)
    hidden = "not shown" if "CONFIG GET" in server.refused else "not there"
    fix = f'"{_DIRECTIVE} Ex" in redis.conf, or in the parameters of a managed service'
    if server.expiry is None or server.expiry.refused:
        return subject.note(f"{hidden}, and could not be tried", fix)
    if server.expiry.touched is not None:
        return subject.ok(f"{hidden}, but events arrive")
    return subject.problem(f"{hidden}, and no event arrives", fix)


def _subject(server: InspectedServer) -> Subject:
    return Subject("events", _DIRECTIVE, server.name, "E and x (or A)")
