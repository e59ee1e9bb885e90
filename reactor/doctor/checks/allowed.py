"""What the user has to be allowed, one right after the other."""

from collections.abc import Iterator

from reactor.doctor.deployment import Patient
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.rights import rule


def allowed(patient: Patient) -> Iterator[Finding]:
    """Name each right that is lacking with the rule that gives it, and the rule that gives them all."""
    user = patient.target.username or "default"
    cluster = patient.target.kind == "cluster"
    for server in patient.seen:
        if "rights" in server.refused:
            rights = Subject("rights", "rights", server.name, "all that are needed")
            yield rights.problem(f"could not be tried: {server.refused['rights']}")
            continue
        for lacking in server.rights:
            right = Subject("rights", f"right: {lacking.what}", server.name, lacking.rule)
            if "unknown command" in lacking.said:
                yield right.problem(
                    "not there: renamed, or taken out", "take rename-command out of redis.conf"
                )
            else:
                yield right.problem(f"refused to user {user}", f"ACL SETUSER {user} {lacking.rule}")
        if server.rights:
            whole = rule(patient.settings.namespace, patient.target.db, cluster=cluster)
            rights = Subject("rights", "all rights", server.name, "all that are needed, and nothing else")
            yield rights.problem(f"{len(server.rights)} lacking", f"ACL SETUSER {user} on {whole}")
        else:
            yield Subject("rights", "rights", server.name, "all").ok(f"all, as user {user}")
