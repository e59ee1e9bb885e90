"""Whether a replica can take over, and how far it is behind."""

from collections.abc import Iterator
from typing import Any

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.units import size

_MAX_LAG = 10
"""Seconds since a replica's last acknowledgement; the default of Redis's min-replicas-max-lag."""
_MAX_BEHIND = 16 << 20
"""Bytes: at most this much is lost at a failover."""


@deployment_check(order=110)
def replicas(deployment: Deployment) -> Iterator[Finding]:
    """Judge each primary's replicas as the primary sees them, and each replica's connection as it sees it."""
    for server in deployment.primaries:
        if not server.info:
            continue
        known = _replicas_of(server)
        if not known:
            yield _none(deployment, server)
        for replica in known:
            yield _judge(server, replica)
    for server in deployment.replicas:
        status = server.info.get("master_link_status", "up")
        if status != "up":
            subject = Subject("replicas", "connection to the primary", server.name, "up")
            yield subject.problem(str(status), "check its network, and masteruser and masterauth")


def _none(deployment: Deployment, server: InspectedServer) -> Finding:
    if deployment.target.kind == "single":
        return Subject("replicas", "replicas", server.name, "any").ok("none")
    subject = Subject("replicas", "replicas", server.name, "1 or more")
    return subject.problem("none: no failover is possible", "start another server with `replicaof`")


def _judge(server: InspectedServer, replica: dict[str, Any]) -> Finding:
    name, wanted = f"replica {replica['ip']}:{replica['port']}", f"online, acknowledged within {_MAX_LAG} s"
    subject, state = Subject("replicas", name, server.name, wanted), str(replica.get("state"))
    lag = int(replica.get("lag", 0))
    behind = int(server.info.get("master_repl_offset", 0)) - int(replica.get("offset", 0))
    if state != "online" or lag > _MAX_LAG:
        found = f"{state}, last acknowledged {lag} s ago"
        return subject.problem(found, "check that it is running and reaches its primary")
    return subject.rated(
        "note" if behind > _MAX_BEHIND else "ok",
        f"online, {size(max(0, behind))} behind",
        "check its network and its load",
    )


def _replicas_of(server: InspectedServer) -> list[dict[str, Any]]:
    return [
        value
        for key, value in sorted(server.info.items())
        if key.startswith("slave") and key[5:].isdigit() and isinstance(value, dict)
    ]
