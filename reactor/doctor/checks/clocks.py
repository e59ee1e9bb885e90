"""Whether the clocks agree. Presence uses only the primary's; a promoted replica uses its own."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.units import span

_BETWEEN_SERVERS = 1.0
_TO_THIS_MACHINE = 5.0
"""Seconds by which clocks may differ."""
_FIX = "run NTP on all machines, for example chrony or systemd-timesyncd"


@deployment_check(order=120)
def clocks(deployment: Deployment) -> Iterator[Finding]:
    """Judge the servers' clocks against each other and against this machine's."""
    for server in deployment.reachable:
        if server.clock is None:
            continue
        ahead = server.clock.ahead
        difference = max(0.0, abs(ahead) - server.clock.margin)
        direction = "ahead of" if ahead > 0 else "behind"
        found = f"{span(difference)} {direction} this machine" if difference > 0.05 else "as this machine's"
        subject = Subject("clocks", "clock", server.name, f"within {span(_TO_THIS_MACHINE)}")
        yield subject.rated("note" if difference > _TO_THIS_MACHINE else "ok", found, _FIX)
    known = [(server.clock.ahead, server.name) for server in deployment.reachable if server.clock]
    if len(known) < 2:
        return
    (slow, slowest), (fast, fastest) = min(known), max(known)
    margin = sum(server.clock.margin for server in deployment.reachable if server.clock)
    difference = max(0.0, fast - slow - margin)
    if difference > _BETWEEN_SERVERS:
        wanted = f"within {span(_BETWEEN_SERVERS)}: a promoted replica expires members by its own clock"
        subject = Subject("clocks", "clocks of the servers", wanted=wanted)
        yield subject.problem(f"{fastest} is {span(difference)} ahead of {slowest}", _FIX)
