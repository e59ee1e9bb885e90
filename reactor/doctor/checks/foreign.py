"""Keys under our namespace that this version did not write."""

from collections.abc import Iterator

from reactor.doctor.finding import Finding
from reactor.doctor.patient import Keys, Patient, Server

_WANTED = "none"


def foreign(patient: Patient) -> Iterator[Finding]:
    """Judge what was seen of each primary's keys."""
    for server in patient.primaries:
        keys = server.keys
        if keys is None:
            continue
        if keys.refused:
            yield Finding(
                check="keys",
                what="strange keys",
                found=f"not looked at: {keys.refused}",
                wanted=_WANTED,
                mend="none, as the server itself never looks for keys; another user may run the doctor",
                where=server.name,
            )
        elif not keys.strange:
            found = f"none among {'all' if keys.whole else 'the first'} {keys.seen}"
            yield Finding(check="keys", what="strange keys", found=found, wanted="none", where=server.name)
        yield from _strange(server, keys)


def _strange(server: Server, keys: Keys) -> Iterator[Finding]:
    for why, (count, example) in sorted(keys.strange.items()):
        clash = "shard" in why and "without" not in why
        yield Finding(
            check="keys",
            what="strange keys",
            found=f"{count} {why}, such as {example}",
            wanted=_WANTED,
            mend="another program uses this namespace: give one of them another, by --namespace"
            if clash
            else f"nothing reads them; when no older program runs: redis-cli UNLINK {example} (and the like)",
            severity="problem" if clash else "note",
            where=server.name,
        )
