"""Who else may come in, without a password."""

from collections.abc import Iterator

from reactor.doctor.finding import Finding
from reactor.doctor.patient import Patient, Server
from reactor.doctor.rights import rule

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def access(patient: Patient) -> Iterator[Finding]:
    """Judge whether strangers reach a server that asks nobody for a password."""
    if patient.target.password:
        return
    whole = rule(patient.settings.namespace, patient.target.db, cluster=patient.target.kind == "cluster")
    for server in patient.seen:
        is_open = _is_open(server)
        if not is_open and patient.target.path:
            continue  # whoever opens the socket has its file's permissions
        where = "other machines reach it" if is_open else "all programs of this machine reach it"
        yield Finding(
            check="access",
            what="password",
            found=f"none, and {where}",
            wanted="a user with a password and few rights",
            mend=f"ACL SETUSER reactor on >PASSWORD {whole}",
            severity="problem" if is_open else "note",
            where=server.name,
        )


def _is_open(server: Server) -> bool | None:
    """Whether other machines reach it without a password; None where that is not shown."""
    if server.config.get("bind") is None:
        return None
    bound = {address.lstrip("-") for address in server.config["bind"].split()}
    return server.config.get("protected-mode") == "no" and not bound <= _LOOPBACK
