"""Whether somebody has every slot of a cluster, and whether enough Sentinels look on."""

from collections.abc import Iterator

from reactor.backend.topology import SLOTS
from reactor.doctor.deployment import Patient
from reactor.doctor.finding import Finding, Subject


def coverage(patient: Patient) -> Iterator[Finding]:
    """Judge a cluster's slots and state."""
    if patient.slots is None:
        return
    slots = Subject("coverage", "slots", wanted=f"all {SLOTS}")
    lacking = sum(last - first + 1 for first, last in patient.slots.missing)
    if lacking:
        shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in patient.slots.missing[:5])
        more = ", …" if len(patient.slots.missing) > 5 else ""
        found = f"{lacking} of {SLOTS} belong to nobody: {shown}{more}"
        yield slots.problem(found, "redis-cli --cluster fix HOST:PORT")
    else:
        yield slots.ok(f"all {SLOTS}")
    yield Subject("coverage", "cluster_state", wanted="ok").judged(
        "ok" if patient.slots.state == "ok" else "problem",
        patient.slots.state,
        "redis-cli --cluster check HOST:PORT says what is wrong",
    )


def sentinels(patient: Patient) -> Iterator[Finding]:
    """Judge how many Sentinels there are, and whether the address names enough of them."""
    answering = [sentinel for sentinel in patient.sentinels if sentinel.master]
    if not answering:
        return
    there = 1 + max(int(sentinel.master.get("num-other-sentinels", 0)) for sentinel in answering)
    number = Subject("sentinels", "Sentinels", wanted="3 or more, on machines of their own")
    mend = "start more of them: two cannot outvote each other"
    yield number.judged("note" if there < 3 else "ok", f"{there}", mend)
    if len(patient.sentinels) == 1 and there > 1:
        named = Subject("sentinels", "Sentinels in the URL", wanted="2 or more")
        yield named.note("1: while it is down nothing can start", "name more of them, separated by commas")
