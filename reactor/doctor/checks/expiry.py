"""How late the expiry of a key is published."""

from collections.abc import Iterator
from dataclasses import replace

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, ExpiryDelays, InspectedServer
from reactor.doctor.expiry_probe import TOUCHED_TIMEOUT, UNTOUCHED_TIMEOUT
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.units import milliseconds, span

PUNCTUAL = 0.25
"""Seconds after its deadline within which the event of a touched key should arrive."""


@deployment_check(order=60)
def expiry(deployment: Deployment) -> Iterator[Finding]:
    """Judge how late the events of the two temporary keys arrived from each primary."""
    for server in deployment.primaries:
        if server.expiry is None:
            continue
        if server.expiry.refused:
            if server.expiry.failed_command != "SET":  # a refused write is a finding of `writes`
                broken = server.expiry.failed_command == "connection"
                yield _touched_key(server).problem(
                    f"not tried: {server.expiry.failed_command}: {server.expiry.refused}",
                    "run the doctor again" if broken else "fix the permissions above",
                )
            continue
        yield _touched(server, server.expiry)
        if server.expiry.touched is not None:
            yield _untouched(server, server.expiry, pacemaker=deployment.settings.pacemaker)


def _touched_key(server: InspectedServer) -> Subject:
    return Subject("expiry", "expiry of a touched key", server.name, f"within {milliseconds(PUNCTUAL)}")


def _touched(server: InspectedServer, delays: ExpiryDelays) -> Finding:
    key = _touched_key(server)
    if delays.touched is None:
        return key.problem(f"no event in {span(TOUCHED_TIMEOUT)}", "switch the events on, as above")
    return key.rated(
        "note" if delays.touched > PUNCTUAL else "ok",
        f"event after {milliseconds(delays.touched)}",
        "check the load of the server and of the network",
    )


def _untouched(server: InspectedServer, delays: ExpiryDelays, *, pacemaker: bool) -> Finding:
    key = Subject("expiry", "expiry of another key", server.name, "any")
    if delays.untouched is not None:
        return key.ok(f"event after {milliseconds(delays.untouched)}")
    found = f"no event in {span(UNTOUCHED_TIMEOUT)}"
    if pacemaker:
        return replace(key, wanted="any: the pacemaker touches keys").ok(found)
    return replace(key, wanted="an event: pacemaker is off").problem(found, "set pacemaker on")
