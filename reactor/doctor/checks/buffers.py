"""How far a subscribed node may fall behind before Redis disconnects it."""

from collections.abc import Iterator

from reactor.doctor.checks import deployment_check
from reactor.doctor.deployment import Deployment
from reactor.doctor.finding import Finding, Subject
from reactor.doctor.units import size

_DIRECTIVE = "client-output-buffer-limit"
_HARD, _SOFT = 32 << 20, 8 << 20
_FAR_TOO_SMALL = 1 << 20
_VALUE = f"pubsub {_HARD} {_SOFT} 60"
_WANTED = "32 MiB, or 8 MiB for 60 s, or more"


@deployment_check(order=90)
def buffers(deployment: Deployment) -> Iterator[Finding]:
    """Judge the limits for subscribers on every server."""
    for server in deployment.reachable:
        limits = _limits(server.setting(_DIRECTIVE) or "")
        if limits is None:
            continue
        hard, soft, seconds = limits
        parts = (size(hard) if hard else "", f"{size(soft)} for {seconds} s" if soft else "")
        found = ", or ".join(part for part in parts if part)
        limit = Subject("buffers", "pub/sub buffer limit", server.name, _WANTED)
        small = 0 < hard < _HARD or 0 < soft < _SOFT
        if not small and hard:
            yield limit.ok(found)
            continue
        harm = "a burst of expiries disconnects nodes" if small else "a node that hangs uses up the memory"
        yield limit.rated(
            "problem" if 0 < hard < _FAR_TOO_SMALL or 0 < soft < _FAR_TOO_SMALL else "note",
            f"{found or 'none'}: {harm}",
            ("CONFIG", "SET", _DIRECTIVE, _VALUE),
        )


def _limits(text: str) -> tuple[int, int, int] | None:
    """Hard limit, soft limit and its seconds, of a text such as `normal 0 0 0 pubsub 33554432 8388608 60`."""
    words = text.split()
    if "pubsub" not in words:
        return None
    hard, soft, seconds = words[words.index("pubsub") + 1 :][:3]
    return int(hard), int(soft), int(seconds)
