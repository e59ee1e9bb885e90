"""Whether the clocks agree.

Presence goes by Redis's alone; a replica judges the same deadlines by its own.
"""

from collections.abc import Iterator

from reactor.doctor.checks.words import span
from reactor.doctor.deployment import Patient
from reactor.doctor.finding import Finding, Subject

_BETWEEN = 1.0
_HERE = 5.0
"""Seconds that clocks may be apart."""
_MEND = "run NTP on all of them, as by chrony or systemd-timesyncd"


def clocks(patient: Patient) -> Iterator[Finding]:
    """Judge the servers' clocks against each other and against this machine's."""
    for server in patient.seen:
        if server.clock is None:
            continue
        ahead = server.clock.ahead
        apart = max(0.0, abs(ahead) - server.clock.margin)
        direction = "ahead of" if ahead > 0 else "behind"
        found = f"{span(apart)} {direction} this machine's" if apart > 0.05 else "as this machine's"
        clock = Subject("clocks", "clock", server.name, f"within {span(_HERE)}")
        yield clock.judged("note" if apart > _HERE else "ok", found, _MEND)
    known = [(server.clock.ahead, server.name) for server in patient.seen if server.clock]
    if len(known) < 2:
        return
    (slow, slowest), (fast, fastest) = min(known), max(known)
    margin = sum(server.clock.margin for server in patient.seen if server.clock)
    apart = max(0.0, fast - slow - margin)
    if apart > _BETWEEN:
        wanted = f"within {span(_BETWEEN)}: a promoted replica ends stays by its own"
        all_clocks = Subject("clocks", "clocks of the servers", wanted=wanted)
        yield all_clocks.problem(f"{fastest} is {span(apart)} ahead of {slowest}", _MEND)
