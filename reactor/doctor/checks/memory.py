"""Whether Redis may throw away who is present, and whether there is room for more."""

from collections.abc import Iterator

from reactor.doctor.checks.words import size
from reactor.doctor.deployment import Patient, Server
from reactor.doctor.finding import Finding, Subject, command_line

_WANTED = "noeviction"
_FULL, _NEARLY = 0.98, 0.85


def memory(patient: Patient) -> Iterator[Finding]:
    """Judge limit, policy and fill of every server."""
    for server in patient.seen:
        limit, policy = _limit(server), _policy(server)
        if limit is None or policy is None:
            yield _policy_of(server).note(
                "not shown to this user", '"maxmemory-policy noeviction" in redis.conf'
            )
            continue
        yield _judge_policy(server, policy, limit)
        used = server.info.get("used_memory")
        if limit and isinstance(used, int):
            yield _judge_fill(server, used, limit)


def _judge_policy(server: Server, policy: str, limit: int) -> Finding:
    subject = _policy_of(server)
    if policy == _WANTED:
        return subject.ok(policy)
    command = ("CONFIG", "SET", "maxmemory-policy", _WANTED)
    mend = command if server.config else command_line(*command)
    if limit:
        return subject.problem(f"{policy}: presence is evicted when it is full", mend)
    return subject.note(f"{policy}: without effect, as there is no maxmemory", mend)


def _policy_of(server: Server) -> Subject:
    return Subject("memory", "maxmemory-policy", server.name, _WANTED)


def _judge_fill(server: Server, used: int, limit: int) -> Finding:
    full = used / limit
    fill = Subject("memory", "memory in use", server.name, "room for more: a full server refuses joins")
    return fill.judged(
        "problem" if full > _FULL else "note" if full > _NEARLY else "ok",
        f"{size(used)} of {size(limit)}",
        "raise maxmemory, or move other data elsewhere",
    )


def _limit(server: Server) -> int | None:
    seen = server.info.get("maxmemory")
    return server.number("maxmemory") if seen is None else int(seen)


def _policy(server: Server) -> str | None:
    seen = server.info.get("maxmemory_policy")
    return server.setting("maxmemory-policy") if seen is None else str(seen)
