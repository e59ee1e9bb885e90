"""Whether each primary takes writes, and only while they are safe."""

from collections.abc import Iterator

from reactor.doctor.finding import Finding
from reactor.doctor.patient import Patient, Server

NAME = "min-replicas-to-write"


def writes(patient: Patient) -> Iterator[Finding]:
    """Judge what was tried, and how many replicas a primary waits for."""
    for server in patient.primaries:
        if server.expiry is not None and server.expiry.refused and server.expiry.what == "SET":
            yield Finding(
                check="writes",
                what="a write",
                found=f"refused: {server.expiry.refused}",
                wanted="taken",
                mend=_mend(server.expiry.refused),
                severity="problem",
                where=server.name,
            )
        least, has = server.number(NAME), server.info.get("connected_slaves")
        if least is None or has is None:
            continue
        yield _judge(server, least, int(has))


def _judge(server: Server, least: int, has: int) -> Finding:
    if least > has:
        return Finding(
            check="writes",
            what=NAME,
            found=f"{least}, but {has} replicas",
            wanted=f"at most {has}",
            mend=f"start the replicas; or CONFIG SET {NAME} {has}",
            severity="problem",
            where=server.name,
        )
    if least == 0 and has > 1:
        return Finding(
            check="writes",
            what=NAME,
            found="0: a primary that is cut off takes writes that are lost",
            wanted="1",
            mend=f"CONFIG SET {NAME} 1 (on replicas, too: they may be promoted)",
            severity="note",
            where=server.name,
        )
    wanted = "0" if has == 0 else f"up to {has}" if has == 1 else "1 or more"
    return Finding(check="writes", what=NAME, found=str(least), wanted=wanted, where=server.name)


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
