"""Proxies in front of the running nodes that their settings do not fit."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment
from reactor.doctor.finding import Finding, Subject


@deployment_check(order=150)
def proxies(deployment: Deployment) -> Iterator[Finding]:
    """Repeat what the nodes have noticed in the handshakes of their clients."""
    for server in deployment.primaries:
        for node, notices in sorted(server.notices.items()):
            for notice in notices:
                found, _, fix = notice.partition(": ")
                yield Subject("settings", "proxy", node, "one that is trusted and names clients").problem(
                    found, fix
                )
