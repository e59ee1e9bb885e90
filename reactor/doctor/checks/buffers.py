"""How far a node that listens may fall behind before it is cut off."""

from collections.abc import Iterator

from reactor.doctor.checks.words import size
from reactor.doctor.deployment import Patient
from reactor.doctor.finding import Finding, Subject

NAME = "client-output-buffer-limit"
_HARD, _SOFT = 32 << 20, 8 << 20
_TOO_LITTLE = 1 << 20
_VALUE = f"pubsub {_HARD} {_SOFT} 60"
_WANTED = "32 MiB, or 8 MiB for 60 s, or more"


def buffers(patient: Patient) -> Iterator[Finding]:
    """Judge the limits for subscribers on every server."""
    for server in patient.seen:
        limits = _limits(server.setting(NAME) or "")
        if limits is None:
            continue
        hard, soft, seconds = limits
        found = ", or ".join(
            part
            for part in (size(hard) if hard else "", f"{size(soft)} for {seconds} s" if soft else "")
            if part
        )
        limit = Subject("buffers", "pub/sub buffer limit", server.name, _WANTED)
        tight = 0 < hard < _HARD or 0 < soft < _SOFT
        if not tight and hard:
            yield limit.ok(found)
            continue
        harm = "a burst of expiries cuts nodes off" if tight else "a node that hangs eats the server's memory"
        yield limit.judged(
            "problem" if 0 < hard < _TOO_LITTLE or 0 < soft < _TOO_LITTLE else "note",
            f"{found or 'none'}: {harm}",
            ("CONFIG", "SET", NAME, _VALUE),
        )


def _limits(text: str) -> tuple[int, int, int] | None:
    """Hard limit, soft limit and its seconds, of a text such as `normal 0 0 0 pubsub 33554432 8388608 60`."""
    words = text.split()
    if "pubsub" not in words:
        return None
    hard, soft, seconds = words[words.index("pubsub") + 1 :][:3]
    return int(hard), int(soft), int(seconds)
