"""What the user has to be allowed, one right after the other."""

from collections.abc import Iterator

from reactor.doctor.finding import Finding
from reactor.doctor.patient import Patient
from reactor.doctor.rights import rule


def allowed(patient: Patient) -> Iterator[Finding]:
    """Name each right that is lacking with the rule that gives it, and the rule that gives them all."""
    user = patient.target.username or "default"
    cluster = patient.target.kind == "cluster"
    for server in patient.seen:
        if "rights" in server.refused:
            yield Finding(
                check="rights",
                what="rights",
                found=f"could not be tried: {server.refused['rights']}",
                wanted="all that are needed",
                severity="problem",
                where=server.name,
            )
            continue
        for lacking in server.rights:
            gone = "unknown command" in lacking.said
            yield Finding(
                check="rights",
                what=f"right: {lacking.what}",
                wanted=lacking.rule,
                severity="problem",
                found="not there: renamed, or taken out" if gone else f"refused to user {user}",
                mend="take rename-command out of redis.conf"
                if gone
                else f"ACL SETUSER {user} {lacking.rule}",
                where=server.name,
            )
        if server.rights:
            whole = rule(patient.settings.namespace, patient.target.db, cluster=cluster)
            yield Finding(
                check="rights",
                what="all rights",
                found=f"{len(server.rights)} lacking",
                severity="problem",
                wanted="all that are needed, and nothing else",
                mend=f"ACL SETUSER {user} on {whole}",
                where=server.name,
            )
        else:
            yield Finding(
                check="rights",
                what="rights",
                found=f"all, as user {user}",
                wanted="all",
                where=server.name,
            )
