"""Whether every server answers: those that the URL names, and those that they name."""

from collections.abc import Iterator

from reactor.backend.diagnose import NAMED_BY_CLUSTER, NAMED_BY_SENTINELS
from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding, Severity, Subject
from reactor.doctor.units import milliseconds

_NAMED_IN_URL = "start it, or remove it from the address"
_NEEDED = "start it, or open the network path: after a failover every node of reactor has to reach it"
_NOT_NEEDED = "none, if only its primary has to reach it"


@deployment_check(order=10)
def reachable(deployment: Deployment) -> Iterator[Finding]:
    """Judge every address. A replica of a single server matters only to its primary: it gets a note."""
    for name, reason in sorted(deployment.unreachable_hosts.items()):
        yield _unreachable("address in the URL", name, reason, _NAMED_IN_URL)
    for sentinel in deployment.sentinels:
        if sentinel.unreachable:
            yield _unreachable("Sentinel", sentinel.name, sentinel.unreachable, _NAMED_IN_URL)
        else:
            yield _subject("Sentinel", sentinel.name).ok("answers")
    for server in deployment.servers:
        if not server.unreachable:
            found = f"answers in {milliseconds(server.answered_in)}"
            yield _subject(server.role, server.name).ok(found)
        elif deployment.target.kind == "single" and server.role == "replica":
            yield _unreachable(server.role, server.name, server.unreachable, _NOT_NEEDED, "note")
        else:
            yield _unreachable(server.role, server.name, server.unreachable, _fix_of(deployment, server))


def _fix_of(deployment: Deployment, server: InspectedServer) -> str:
    """The fix of a server that every node has to reach."""
    if "certificate is not valid for" in server.unreachable and server.address not in deployment.target.hosts:
        return NAMED_BY_CLUSTER if deployment.target.kind == "cluster" else NAMED_BY_SENTINELS
    return _NEEDED


def _unreachable(what: str, where: str, reason: str, fix: str, severity: Severity = "problem") -> Finding:
    return _subject(what, where).rated(severity, reason.partition("; ")[0], fix)


def _subject(what: str, where: str) -> Subject:
    return Subject("reachable", what, where, "an answer")
