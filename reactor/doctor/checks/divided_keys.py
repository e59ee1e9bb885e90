"""Whether a plain address stands for one server, as the scripts need."""

from collections.abc import Iterator

from reactor.backend.division import DIVISION_FIX
from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment
from reactor.doctor.finding import Finding, Subject


@deployment_check(order=46)
def divided_keys(deployment: Deployment) -> Iterator[Finding]:
    """Report a proxy, or a service, that divides the keys of one address over several servers."""
    for server in deployment.primaries:
        if server.division:
            subject = Subject("scripts", "keys of all shards", server.name, "on one server")
            yield subject.problem(f"divided: {server.division}", DIVISION_FIX)
