"""Keys under our namespace that this version did not write."""

from collections.abc import Iterator

from reactor.doctor.deployment import Patient
from reactor.doctor.finding import Finding, Subject

_UNSEEN = "none, as the server itself never looks for keys; another user may run the doctor"
_CLASH = "another program uses this namespace: give one of them another, by --namespace"
_UNREAD = "nothing reads them; when no older program runs: redis-cli UNLINK {} (and the like)"


def foreign(patient: Patient) -> Iterator[Finding]:
    """Judge what was seen of each primary's keys."""
    for server in patient.primaries:
        keys = server.keys
        if keys is None:
            continue
        strange = Subject("keys", "strange keys", server.name, "none")
        if keys.refused:
            yield strange.ok(f"not looked at: {keys.refused}", _UNSEEN)
        elif not keys.strange:
            yield strange.ok(f"none among {'all' if keys.whole else 'the first'} {keys.seen}")
        for why, (count, example) in sorted(keys.strange.items()):
            found = f"{count} {why}, such as {example}"
            if "shard" in why and "without" not in why:
                yield strange.problem(found, _CLASH)
            else:
                yield strange.note(found, _UNREAD.format(example))
