"""Whether somebody has every slot of a cluster, and whether enough Sentinels look on."""

from collections.abc import Iterator

from reactor.doctor.finding import Finding
from reactor.doctor.patient import Patient
from reactor.presence.topology import SLOTS


def coverage(patient: Patient) -> Iterator[Finding]:
    """Judge a cluster's slots and state."""
    if patient.slots is None:
        return
    lacking = sum(last - first + 1 for first, last in patient.slots.missing)
    if lacking:
        shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in patient.slots.missing[:5])
        more = ", …" if len(patient.slots.missing) > 5 else ""
        yield Finding(
            check="coverage",
            what="slots",
            found=f"{lacking} of {SLOTS} belong to nobody: {shown}{more}",
            wanted=f"all {SLOTS}",
            mend="redis-cli --cluster fix HOST:PORT",
            severity="problem",
        )
    else:
        yield Finding(check="coverage", what="slots", found=f"all {SLOTS}", wanted=f"all {SLOTS}")
    whole = patient.slots.state == "ok"
    yield Finding(
        check="coverage",
        what="cluster_state",
        found=patient.slots.state,
        wanted="ok",
        mend="" if whole else "redis-cli --cluster check HOST:PORT says what is wrong",
        severity="ok" if whole else "problem",
    )


def sentinels(patient: Patient) -> Iterator[Finding]:
    """Judge how many Sentinels there are, and whether the address names enough of them."""
    answering = [sentinel for sentinel in patient.sentinels if sentinel.master]
    if not answering:
        return
    there = 1 + max(int(sentinel.master.get("num-other-sentinels", 0)) for sentinel in answering)
    few = there < 3
    yield Finding(
        check="sentinels",
        what="Sentinels",
        found=f"{there}",
        wanted="3 or more, on machines of their own",
        mend="start more of them: two cannot outvote each other" if few else "",
        severity="note" if few else "ok",
    )
    if len(patient.sentinels) == 1 and there > 1:
        yield Finding(
            check="sentinels",
            what="Sentinels in the URL",
            found="1: while it is down nothing can start",
            wanted="2 or more",
            mend="name more of them, separated by commas",
            severity="note",
        )
