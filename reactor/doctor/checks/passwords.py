"""Whether a server requires a password."""

from collections.abc import Iterator
from dataclasses import replace

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment, InspectedServer
from reactor.doctor.finding import Finding, Subject
from reactor.presence.rights import acl_rule

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_SET_PASSWORD = "ACL SETUSER default resetpass >ANOTHER-PASSWORD (replicas then need masterauth)"  # noqa: S105


@deployment_check(order=41)
def passwords(deployment: Deployment) -> Iterator[Finding]:
    """Judge whether a server executes commands of clients that send no password."""
    target = deployment.target
    rule = acl_rule(deployment.settings.namespace, target.db, cluster=target.kind == "cluster")
    for server in deployment.reachable:
        exposed = _is_exposed(server)
        password = Subject("access", "password", server.name, "required")
        if not server.open:
            yield password.ok("required")
        elif target.path and not exposed:
            password = replace(password, wanted="required, or a socket that others cannot open")
            yield password.ok("none: access is limited to users who may open the socket")
        else:
            fix = _SET_PASSWORD if target.password else f"ACL SETUSER reactor on >PASSWORD {rule}"
            clients = "other machines have" if exposed else "every client has"
            yield password.rated("problem" if exposed else "note", f"none: {clients} full access", fix)


def _is_exposed(server: InspectedServer) -> bool:
    """Whether its configuration shows that other machines can connect without a password."""
    bound = {address.lstrip("-") for address in server.config.get("bind", "127.0.0.1").split()}
    return server.config.get("protected-mode") == "no" and not bound <= _LOOPBACK
