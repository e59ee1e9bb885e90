"""Whether Redis may throw away who is present, and whether there is room for more."""

from collections.abc import Iterator

from reactor.doctor.checks.words import size
from reactor.doctor.finding import Finding, Fix, command_line
from reactor.doctor.patient import Patient, Server

_WANTED = "noeviction"
_FULL, _NEARLY = 0.98, 0.85


def memory(patient: Patient) -> Iterator[Finding]:
    """Judge limit, policy and fill of every server."""
    for server in patient.seen:
        limit, policy = _limit(server), _policy(server)
        if limit is None or policy is None:
            yield Finding(
                check="memory",
                what="maxmemory-policy",
                found="not shown to this user",
                wanted=_WANTED,
                mend='"maxmemory-policy noeviction" in redis.conf',
                severity="note",
                where=server.name,
            )
            continue
        yield _judge_policy(server, policy, limit)
        used = server.info.get("used_memory")
        if limit and isinstance(used, int):
            yield _judge_fill(server, used, limit)


def _judge_policy(server: Server, policy: str, limit: int) -> Finding:
    if policy == "noeviction":
        return Finding(
            check="memory", what="maxmemory-policy", found=policy, wanted=_WANTED, where=server.name
        )
    command = ("CONFIG", "SET", "maxmemory-policy", "noeviction")
    harm = "presence is evicted when it is full" if limit else "without effect, as there is no maxmemory"
    return Finding(
        check="memory",
        what="maxmemory-policy",
        found=f"{policy}: {harm}",
        wanted=_WANTED,
        mend=command_line(*command),
        severity="problem" if limit else "note",
        where=server.name,
        fix=Fix(where=server.name, command=command) if server.config else None,
    )


def _judge_fill(server: Server, used: int, limit: int) -> Finding:
    full = used / limit
    return Finding(
        check="memory",
        what="memory in use",
        found=f"{size(used)} of {size(limit)}",
        where=server.name,
        wanted="room for more: a full server refuses joins",
        mend="raise maxmemory, or move other data elsewhere" if full > _NEARLY else "",
        severity="problem" if full > _FULL else "note" if full > _NEARLY else "ok",
    )


def _limit(server: Server) -> int | None:
    seen = server.info.get("maxmemory")
    return server.number("maxmemory") if seen is None else int(seen)


def _policy(server: Server) -> str | None:
    seen = server.info.get("maxmemory_policy")
    return server.setting("maxmemory-policy") if seen is None else str(seen)
