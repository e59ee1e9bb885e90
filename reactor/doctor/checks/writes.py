"""Whether each primary takes writes, and only while they are safe."""

from collections.abc import Iterator

from reactor.doctor.deployment import Patient, Server
from reactor.doctor.finding import Finding, Subject

NAME = "min-replicas-to-write"


def writes(patient: Patient) -> Iterator[Finding]:
    """Judge what was tried, and how many replicas a primary waits for."""
    for server in patient.primaries:
        if server.expiry is not None and server.expiry.refused and server.expiry.what == "SET":
            write = Subject("writes", "a write", server.name, "taken")
            yield write.problem(f"refused: {server.expiry.refused}", _mend(server.expiry.refused))
        least, has = server.number(NAME), server.info.get("connected_slaves")
        if least is None or has is None:
            continue
        yield _judge(server, least, int(has))


def _judge(server: Server, least: int, has: int) -> Finding:
    if least > has:
        number = Subject("writes", NAME, server.name, f"at most {has}")
        mend = f"start the replicas; or CONFIG SET {NAME} {has}"
        return number.problem(f"{least}, but {has} replicas", mend)
    if least == 0 and has > 1:
        return Subject("writes", NAME, server.name, "1").note(
            "0: a primary that is cut off takes writes that are lost",
            f"CONFIG SET {NAME} 1 (on replicas, too: they may be promoted)",
        )
    wanted = "0" if has == 0 else f"up to {has}" if has == 1 else "1 or more"
    return Subject("writes", NAME, server.name, wanted).ok(str(least))


def _mend(said: str) -> str:
    if "NOREPLICAS" in said or "good replicas" in said:
        return f"start the replicas; or CONFIG SET {NAME} 0"
    if "permission" in said.lower():
        return "see the rights above"
    if "OOM" in said or "maxmemory" in said:
        return "raise maxmemory, or move other data elsewhere"
    if "MISCONF" in said or "persist" in said.lower() or "snapshot" in said.lower():
        return "see the server's log and its disk"
    return "see the server's log"
