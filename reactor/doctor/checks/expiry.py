"""How late a real expiry comes to be known."""

from collections.abc import Iterator

from reactor.doctor.checks.words import milliseconds, span
from reactor.doctor.finding import Finding
from reactor.doctor.patient import Expiry, Patient, Server
from reactor.doctor.probe import TOUCHED_WITHIN, UNTOUCHED_WITHIN

PUNCTUAL = 0.25
"""Seconds after its deadline within which the event of a touched key is to come."""

_TOUCHED, _UNTOUCHED = "expiry of a touched key", "expiry of another key"


def expiry(patient: Patient) -> Iterator[Finding]:
    """Judge how late the two throwaway keys of each primary were told."""
    for server in patient.primaries:
        if server.expiry is None:
            continue
        if server.expiry.refused:
            if server.expiry.what != "SET":  # that is the write's own finding
                yield Finding(
                    check="expiry",
                    what=_TOUCHED,
                    found=f"not tried: {server.expiry.what}: {server.expiry.refused}",
                    wanted=f"within {milliseconds(PUNCTUAL)}",
                    mend="run the doctor again"
                    if server.expiry.what == "the link"
                    else "see the rights above",
                    severity="problem",
                    where=server.name,
                )
            continue
        yield _touched(server, server.expiry)
        if server.expiry.touched is not None:
            yield _untouched(server, server.expiry, pacemaker=patient.settings.pacemaker)


def _touched(server: Server, seen: Expiry) -> Finding:
    wanted = f"within {milliseconds(PUNCTUAL)}"
    if seen.touched is None:
        return Finding(
            check="expiry",
            what=_TOUCHED,
            found=f"no event in {span(TOUCHED_WITHIN)}",
            wanted=wanted,
            mend="switch the events on, as above",
            severity="problem",
            where=server.name,
        )
    late = seen.touched > PUNCTUAL
    return Finding(
        check="expiry",
        what=_TOUCHED,
        found=f"event after {milliseconds(seen.touched)}",
        wanted=wanted,
        severity="note" if late else "ok",
        where=server.name,
        mend="see how busy the server and the way to it are" if late else "",
    )


def _untouched(server: Server, seen: Expiry, *, pacemaker: bool) -> Finding:
    if seen.untouched is not None:
        found = f"event after {milliseconds(seen.untouched)}"
        return Finding(check="expiry", what=_UNTOUCHED, found=found, wanted="any", where=server.name)
    return Finding(
        check="expiry",
        what=_UNTOUCHED,
        found=f"no event in {span(UNTOUCHED_WITHIN)}",
        wanted="any: the pacemaker touches keys" if pacemaker else "an event: the pacemaker is off",
        mend="" if pacemaker else "switch the pacemaker on",
        severity="ok" if pacemaker else "problem",
        where=server.name,
    )
