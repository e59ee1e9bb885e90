"""What the user is not shown: the configuration of a managed service, or with few rights."""

from collections.abc import Iterator

from reactor.doctor.deployment import Patient
from reactor.doctor.finding import Finding, Subject

_UNSEEN = "pub/sub buffer limit, timeout, tcp-keepalive, min-replicas-to-write"
_MEND = "none; another user, or the service's parameters, show it"


def hidden(patient: Patient) -> Iterator[Finding]:
    """Say what could not be looked at; the server itself needs none of it."""
    for server in patient.seen:
        if "CONFIG GET" in server.refused:
            config = Subject("config", "CONFIG", server.name, "any: the server needs it not")
            yield config.ok(f"{server.refused['CONFIG GET']}; not looked at: {_UNSEEN}", _MEND)
