"""Whether there is somebody to take over, and how far behind."""

from collections.abc import Iterator
from typing import Any

from reactor.doctor.checks.words import size
from reactor.doctor.finding import Finding
from reactor.doctor.patient import Patient, Server

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
            yield Finding(
                check="replicas",
                what="link to the primary",
                found=f"{status}",
                wanted="up",
                severity="problem",
                mend="see that it reaches its primary, and masteruser and masterauth",
                where=server.name,
            )


def _none(patient: Patient, server: Server) -> Finding:
    if patient.target.kind == "single":
        return Finding(
            check="replicas",
            what="replicas",
            found="none",
            wanted="any",
            where=server.name,
        )
    return Finding(
        check="replicas",
        what="replicas",
        found="none: nobody can take over",
        wanted="1 or more",
        mend="start another server with `replicaof`",
        severity="problem",
        where=server.name,
    )


def _judge(server: Server, follower: dict[str, Any]) -> Finding:
    name, state = f"replica {follower['ip']}:{follower['port']}", str(follower.get("state"))
    lag = int(follower.get("lag", 0))
    behind = int(server.info.get("master_repl_offset", 0)) - int(follower.get("offset", 0))
    wanted = f"online, heard of within {_LAG} s"
    if state != "online" or lag > _LAG:
        return Finding(
            check="replicas",
            what=name,
            found=f"{state}, last heard of {lag} s ago",
            wanted=wanted,
            mend="see that it runs and reaches its primary",
            severity="problem",
            where=server.name,
        )
    return Finding(
        check="replicas",
        what=name,
        found=f"online, {size(max(0, behind))} behind",
        wanted=wanted,
        severity="note" if behind > _BEHIND else "ok",
        mend="see its network and its load" if behind > _BEHIND else "",
        where=server.name,
    )


def _followers(server: Server) -> list[dict[str, Any]]:
    return [
        value
        for key, value in sorted(server.info.items())
        if key.startswith("slave") and key[5:].isdigit() and isinstance(value, dict)
    ]
