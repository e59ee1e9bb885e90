"""Whether scripts may use keys that they build from a declared prefix, as the scripts of presence do."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment
from reactor.doctor.finding import Finding, Subject


@deployment_check(order=45)
def undeclared_keys(deployment: Deployment) -> Iterator[Finding]:
    """Report a server that refuses keys which a script does not declare."""
    for server in deployment.reachable:
        if server.undeclared_keys:
            subject = Subject("scripts", "undeclared keys", server.name, "allowed in scripts")
            yield subject.problem(
                f"refused: {server.undeclared_keys}",
                "Dragonfly: start it with --default_lua_flags=allow-undeclared-keys",
            )
