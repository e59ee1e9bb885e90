"""How late a real expiry comes to be known."""

from collections.abc import Iterator
from dataclasses import replace

from reactor.doctor.checks.words import milliseconds, span
from reactor.doctor.deployment import Expiry, Patient, Server
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.probe import TOUCHED_WITHIN, UNTOUCHED_WITHIN

PUNCTUAL = 0.25
"""Seconds after its deadline within which the event of a touched key is to come."""


def expiry(patient: Patient) -> Iterator[Finding]:
    """Judge how late the two throwaway keys of each primary were told."""
    for server in patient.primaries:
        if server.expiry is None:
            continue
        if server.expiry.refused:
            if server.expiry.what != "SET":  # that is the write's own finding
                again = server.expiry.what == "the link"
                yield _touched_key(server).problem(
                    f"not tried: {server.expiry.what}: {server.expiry.refused}",
                    "run the doctor again" if again else "see the rights above",
                )
            continue
        yield _touched(server, server.expiry)
        if server.expiry.touched is not None:
            yield _untouched(server, server.expiry, pacemaker=patient.settings.pacemaker)


def _touched_key(server: Server) -> Subject:
    return Subject("expiry", "expiry of a touched key", server.name, f"within {milliseconds(PUNCTUAL)}")


def _touched(server: Server, seen: Expiry) -> Finding:
    key = _touched_key(server)
    if seen.touched is None:
        return key.problem(f"no event in {span(TOUCHED_WITHIN)}", "switch the events on, as above")
    return key.judged(
        "note" if seen.touched > PUNCTUAL else "ok",
        f"event after {milliseconds(seen.touched)}",
        "see how busy the server and the way to it are",
    )


def _untouched(server: Server, seen: Expiry, *, pacemaker: bool) -> Finding:
    key = Subject("expiry", "expiry of another key", server.name, "any")
    if seen.untouched is not None:
        return key.ok(f"event after {milliseconds(seen.untouched)}")
    found = f"no event in {span(UNTOUCHED_WITHIN)}"
    if pacemaker:
        return replace(key, wanted="any: the pacemaker touches keys").ok(found)
    return replace(key, wanted="an event: the pacemaker is off").problem(found, "switch the pacemaker on")
