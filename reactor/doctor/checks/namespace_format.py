"""Whether this release, with its settings, can use the namespace as it is stored."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment
from reactor.doctor.finding import Finding, Subject
from reactor.presence.format import FORMATS, default_shards, format_objection


@deployment_check(order=135)
def namespace_format(deployment: Deployment) -> Iterator[Finding]:
    """Judge the format key of the namespace."""
    if not deployment.primaries:
        return
    settings = deployment.settings
    subject = Subject("format", "format of the namespace", wanted=f"format {FORMATS}")
    if deployment.format_unreadable:
        yield subject.note(f"not readable: {deployment.format_unreadable}")
        return
    if deployment.format is None:
        shards = settings.shards or default_shards(deployment.target.kind)
        yield subject.ok(f"none yet: the first node creates it, with {shards} shards")
        return
    number, shards = deployment.format
    by = f", used by {', '.join(deployment.releases)}" if deployment.releases else ""
    found = f"format {number}, {shards} shards{by}"
    objection = format_objection(deployment.format, settings.namespace, shards=settings.shards)
    if objection:
        yield subject.problem(found, objection)
    else:
        yield subject.ok(found)
