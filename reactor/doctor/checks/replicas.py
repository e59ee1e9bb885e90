"""Whether there is somebody to take over, and how far behind."""

from collections.abc import Iterator
from typing import Any

from reactor.doctor.checks.words import size
from reactor.doctor.deployment import Patient, Server
from reactor.doctor.finding import Finding, Subject

_LAG = 10
"""Seconds without a word from a replica after which it counts as lost, as by Redis's min-replicas-max-lag."""
_BEHIND = 16 << 20
"""Bytes; what a failover would lose is at most that much."""


def replicas(patient: Patient) -> Iterator[Finding]:
    """Judge each primary's replicas as it sees them, and each replica's link as that sees it."""
    for server in patient.primaries:
        followers = _followers(server)
        if not server.info:
            continue
        if not followers:
            yield _none(patient, server)
        for follower in followers:
            yield _judge(server, follower)
    for server in patient.replicas:
        status = server.info.get("master_link_status", "up")
        if status != "up":
            link = Subject("replicas", "link to the primary", server.name, "up")
            yield link.problem(f"{status}", "see that it reaches its primary, and masteruser and masterauth")


def _none(patient: Patient, server: Server) -> Finding:
    if patient.target.kind == "single":
        return Subject("replicas", "replicas", server.name, "any").ok("none")
    number = Subject("replicas", "replicas", server.name, "1 or more")
    return number.problem("none: nobody can take over", "start another server with `replicaof`")


def _judge(server: Server, follower: dict[str, Any]) -> Finding:
    name, wanted = f"replica {follower['ip']}:{follower['port']}", f"online, heard of within {_LAG} s"
    replica, state = Subject("replicas", name, server.name, wanted), str(follower.get("state"))
    lag = int(follower.get("lag", 0))
    behind = int(server.info.get("master_repl_offset", 0)) - int(follower.get("offset", 0))
    if state != "online" or lag > _LAG:
        found = f"{state}, last heard of {lag} s ago"
        return replica.problem(found, "see that it runs and reaches its primary")
    return replica.judged(
        "note" if behind > _BEHIND else "ok",
        f"online, {size(max(0, behind))} behind",
        "see its network and its load",
    )


def _followers(server: Server) -> list[dict[str, Any]]:
    return [
        value
        for key, value in sorted(server.info.items())
        if key.startswith("slave") and key[5:].isdigit() and isinstance(value, dict)
    ]
