"""Whether every server is new enough."""

from collections.abc import Iterator

from reactor.backend.clients import check_version
from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding, Subject
from reactor.errors import RedisTooOld

_WANTED = "7.0 or later"


@deployment_check(order=20)
def version(deployment: Deployment) -> Iterator[Finding]:
    """Judge the version of every server."""
    for server in deployment.reachable:
        subject = Subject("version", "version", server.name, _WANTED)
        if "redis_version" not in server.info:
            yield subject.note("not shown to this user", "grant +info to the user")
            continue
        try:
            check_version(server.info, deployment.target)
        except RedisTooOld:
            yield subject.problem(_name_of(server), "upgrade it")
        else:
            yield subject.ok(_name_of(server))


def _name_of(server: InspectedServer) -> str:
    valkey = server.info.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {server.info.get('redis_version', '?')}"
