"""Whether a cluster serves every slot, and whether there are enough Sentinels."""

from collections.abc import Iterator

from reactor.backend.topology import SLOTS
from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment
from reactor.doctor.finding import Finding, Subject

_RANGES_SHOWN = 5


@deployment_check(order=30)
def coverage(deployment: Deployment) -> Iterator[Finding]:
    """Judge a cluster's slots and state."""
    if deployment.slots is None:
        return
    slots = Subject("coverage", "slots", wanted=f"all {SLOTS}")
    missing = deployment.slots.missing
    if missing:
        count = sum(last - first + 1 for first, last in missing)
        shown = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in missing[:_RANGES_SHOWN])
        more = ", …" if len(missing) > _RANGES_SHOWN else ""
        found = f"{count} of {SLOTS} are served by no primary: {shown}{more}"
        yield slots.problem(found, "redis-cli --cluster fix HOST:PORT")
    else:
        yield slots.ok(f"all {SLOTS}")
    yield Subject("coverage", "cluster_state", wanted="ok").rated(
        "ok" if deployment.slots.state == "ok" else "problem",
        deployment.slots.state,
        "redis-cli --cluster check HOST:PORT shows what is wrong",
    )


@deployment_check(order=31)
def sentinels(deployment: Deployment) -> Iterator[Finding]:
    """Judge how many Sentinels there are, and how many of them the URL names."""
    answering = [sentinel for sentinel in deployment.sentinels if sentinel.master]
    if not answering:
        return
    count = 1 + max(int(sentinel.master.get("num-other-sentinels", 0)) for sentinel in answering)
    number = Subject("sentinels", "Sentinels", wanted="3 or more, on different machines")
    fix = "start more: with two, the loss of one leaves no majority for a failover"
    yield number.rated("note" if count < 3 else "ok", f"{count}", fix)
    if len(deployment.sentinels) == 1 and count > 1:
        named = Subject("sentinels", "Sentinels in the URL", wanted="2 or more")
        yield named.note("1: while it is down no node can start", "name more, separated by commas")
