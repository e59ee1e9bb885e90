"""Who else may come in, without a password."""

from collections.abc import Iterator
from dataclasses import replace

from reactor.doctor.deployment import Patient, Server
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.rights import rule

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_CLOSE = "ACL SETUSER default resetpass >ANOTHER-PASSWORD (replicas then need masterauth)"


def access(patient: Patient) -> Iterator[Finding]:
    """Judge whether a server lets in those who give no password."""
    whole = rule(patient.settings.namespace, patient.target.db, cluster=patient.target.kind == "cluster")
    for server in patient.seen:
        exposed = _is_exposed(server)
        password = Subject("access", "password", server.name, "asked for")
        if not server.open:
            yield password.ok("asked for")
        elif patient.target.path and not exposed:
            password = replace(password, wanted="asked for, or a socket that others cannot open")
            yield password.ok("none: who may open the socket may come in")
        else:
            mend = _CLOSE if patient.target.password else f"ACL SETUSER reactor on >PASSWORD {whole}"
            who = "other machines" if exposed else "all who reach it"
            yield password.judged("problem" if exposed else "note", f"none: {who} may do all", mend)


def _is_exposed(server: Server) -> bool:
    """Whether it is known that other machines reach it without a password."""
    bound = {address.lstrip("-") for address in server.config.get("bind", "127.0.0.1").split()}
    return server.config.get("protected-mode") == "no" and not bound <= _LOOPBACK
