"""Keys in the namespace that this version did not write."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.key_scan import DAMAGED, NUMBERED, SET_ASIDE, UNKNOWN_SHARD, WRONG_SHARD

_SCAN_DENIED = "none, as only the doctor scans keys; it can be run as another user"
_CONFLICT = "another program uses this namespace: change it there, or set namespace here"
_NUMBERED = "stop its servers and delete all keys that begin with {{{}: , or use another namespace"
_UNUSED = "nothing reads them; if no older version is running: redis-cli UNLINK {} (and similar keys)"

_DAMAGED = "find the program that writes it; a running server renames it aside and restores what was in it"
_SET_ASIDE = "find the program that wrote it; a server has restored what was in it, and it expires in a week"


@deployment_check(order=140)
def keys(deployment: Deployment) -> Iterator[Finding]:
    """Judge the sample of each primary's keys."""
    for server in deployment.primaries:
        sample = server.keys
        if sample is None:
            continue
        subject = Subject("keys", "unknown keys", server.name, "none")
        if sample.refused:
            yield subject.ok(f"not checked: {sample.refused}", _SCAN_DENIED)
        elif not sample.unknown:
            yield subject.ok(f"none among {'all' if sample.complete else 'the first'} {sample.scanned}")
        for objection, (count, example) in sorted(sample.unknown.items()):
            found = f"{count} {objection}, such as {example}"
            if objection in {UNKNOWN_SHARD, WRONG_SHARD}:
                yield subject.problem(found, _CONFLICT)
            elif objection == NUMBERED:
                yield subject.problem(found, _NUMBERED.format(deployment.settings.namespace))
            elif objection == DAMAGED:
                yield subject.problem(found, _DAMAGED)
            elif objection == SET_ASIDE:
                yield subject.note(found, _SET_ASIDE)
            else:
                yield subject.note(found, _UNUSED.format(example))
