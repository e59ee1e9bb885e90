"""Whether Redis may evict presence keys, and whether there is memory for more."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding, Subject, command_line
from reactor.doctor.units import size

_WANTED = "noeviction"
_PROBLEM_ABOVE, _NOTE_ABOVE = 0.98, 0.85
"""Share of maxmemory in use."""


@deployment_check(order=80)
def memory(deployment: Deployment) -> Iterator[Finding]:
    """Judge limit, eviction policy and use of memory of every server."""
    for server in deployment.reachable:
        limit, policy = _limit(server), _policy(server)
        if limit is None or policy is None:
            yield _policy_of(server).note(
                "not shown to this user", '"maxmemory-policy noeviction" in redis.conf'
            )
            continue
        yield _judge_policy(server, policy, limit)
        used = server.info.get("used_memory")
        if limit and isinstance(used, int):
            yield _judge_use(server, used, limit)


def _judge_policy(server: InspectedServer, policy: str, limit: int) -> Finding:
    subject = _policy_of(server)
    if policy == _WANTED:
        return subject.ok(policy)
    command = ("CONFIG", "SET", "maxmemory-policy", _WANTED)
    fix = command if server.config else command_line(*command)
    if limit:
        return subject.problem(f"{policy}: when memory is full, members are evicted", fix)
    return subject.note(f"{policy}: without effect, as maxmemory is not set", fix)


def _policy_of(server: InspectedServer) -> Subject:
    return Subject("memory", "maxmemory-policy", server.name, _WANTED)


def _judge_use(server: InspectedServer, used: int, limit: int) -> Finding:
    share = used / limit
    subject = Subject("memory", "memory in use", server.name, "room for more: a full server refuses joins")
    return subject.rated(
        "problem" if share > _PROBLEM_ABOVE else "note" if share > _NOTE_ABOVE else "ok",
        f"{size(used)} of {size(limit)}",
        "raise maxmemory, or move other data elsewhere",
    )


def _limit(server: InspectedServer) -> int | None:
    shown = server.info.get("maxmemory")
    return shown if isinstance(shown, int) else server.number("maxmemory")


def _policy(server: InspectedServer) -> str | None:
    shown = server.info.get("maxmemory_policy")
    return server.setting("maxmemory-policy") if shown is None else str(shown)
