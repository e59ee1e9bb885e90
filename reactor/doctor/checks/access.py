"""Who else may come in, without a password."""

from collections.abc import Iterator

from reactor.doctor.finding import Finding
from reactor.doctor.patient import Patient, Server
from reactor.doctor.rights import rule

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_CLOSE = "ACL SETUSER default resetpass >ANOTHER-PASSWORD (replicas then need masterauth)"


def access(patient: Patient) -> Iterator[Finding]:
    """Judge whether a server lets in those who give no password."""
    whole = rule(patient.settings.namespace, patient.target.db, cluster=patient.target.kind == "cluster")
    for server in patient.seen:
        exposed = _is_exposed(server)
        if not server.open:
            yield Finding(
                check="access", what="password", found="asked for", wanted="asked for", where=server.name
            )
        elif patient.target.path and not exposed:
            yield Finding(
                check="access",
                what="password",
                found="none: who may open the socket may come in",
                wanted="asked for, or a socket that others cannot open",
                where=server.name,
            )
        else:
            where = "other machines" if exposed else "all who reach it"
            yield Finding(
                check="access",
                what="password",
                found=f"none: {where} may do all",
                wanted="asked for",
                mend=_CLOSE if patient.target.password else f"ACL SETUSER reactor on >PASSWORD {whole}",
                severity="problem" if exposed else "note",
                where=server.name,
            )


def _is_exposed(server: Server) -> bool:
    """Whether it is known that other machines reach it without a password."""
    bound = {address.lstrip("-") for address in server.config.get("bind", "127.0.0.1").split()}
    return server.config.get("protected-mode") == "no" and not bound <= _LOOPBACK
