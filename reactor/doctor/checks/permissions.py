"""Whether the user has every permission that the server needs, and what the server does not show to it."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment
from reactor.doctor.finding import Finding, Subject
from reactor.presence.rights import OPTIONAL_COMMANDS, granting_rule

_CHECKED_BY_CONFIG = "pub/sub buffer limit, timeout, tcp-keepalive, min-replicas-to-write"


@deployment_check(order=40)
def permissions(deployment: Deployment) -> Iterator[Finding]:
    """Name each missing permission with the ACL rule that grants it, and the rule that grants them all."""
    user = deployment.target.acl_user
    cluster = deployment.target.kind == "cluster"
    for server in deployment.reachable:
        if "permissions" in server.refused:
            subject = Subject("permissions", "permissions", server.name, "all that are needed")
            yield subject.problem(f"could not be tried: {server.refused['permissions']}")
            continue
        for missing in server.missing_permissions:
            subject = Subject("permissions", f"permission: {missing.what}", server.name, missing.rule)
            lost = OPTIONAL_COMMANDS.get(missing.rule.removeprefix("+"))
            gone = "unknown command" in missing.error
            found = "no such command: renamed or disabled" if gone else f"denied to user {user}"
            yield subject.rated(
                "note" if lost else "problem",
                f"{found}: {lost}" if lost else found,
                "remove its rename-command from redis.conf" if gone else f"ACL SETUSER {user} {missing.rule}",
            )
        lacking = {missing.rule.removeprefix("+") for missing in server.missing_permissions}
        if lacking - OPTIONAL_COMMANDS.keys():
            known = {missing.rule for missing in server.missing_permissions}
            rule = granting_rule(known, deployment.settings.namespace, deployment.target.db, cluster=cluster)
            subject = Subject("permissions", "all permissions", server.name, "those that are needed")
            found = f"{len(server.missing_permissions)} missing"
            yield subject.problem(found, f"ACL SETUSER {user} {rule}")
        elif not server.missing_permissions:
            yield Subject("permissions", "permissions", server.name, "all").ok(f"all, as user {user}")


@deployment_check(order=42)
def configuration_access(deployment: Deployment) -> Iterator[Finding]:
    """Say what could not be checked because CONFIG GET is denied; the server itself does not need it."""
    for server in deployment.reachable:
        if "CONFIG GET" in server.refused:
            subject = Subject("config", "CONFIG", server.name, "any: only the doctor reads it")
            found = f"{server.refused['CONFIG GET']}; not checked: {_CHECKED_BY_CONFIG}"
            yield subject.ok(found, "none; another user, or the service's console, shows these settings")
