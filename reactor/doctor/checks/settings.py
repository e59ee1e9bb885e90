"""What is allowed in the settings, and yet dangerous or hardly meant."""

import resource
from collections.abc import Iterator

from reactor.backend.target import parse_url
from reactor.doctor.finding import Finding, Severity, Subject
from reactor.settings import Settings
from reactor.settings.kinds import show_duration
from reactor.settings.load import advice
from reactor.settings.security import is_loopback

_SHORT_LEASE = 2.0
_FEW_FILES = 4096


def settings(chosen: Settings) -> Iterator[Finding]:
    """Judge the settings as a server would load them."""
    found = [
        *(_finding("settings", line, severity="problem") for line in advice(chosen)),
        *_strangers(chosen),
        *_limits(chosen),
        *_redis(chosen),
        *_files(chosen),
    ]
    yield from found or [_finding("settings", "nothing dangerous")]


def _strangers(chosen: Settings) -> Iterator[Finding]:
    if chosen.asks_for_tokens and not is_loopback(chosen.host) and chosen.tls_cert is None:
        yield _finding(
            "TLS",
            "tokens travel in the clear, unless a proxy in front ends TLS",
            "TLS here or in front",
            "set tls_cert and tls_key, or put a proxy in front",
            "note",
        )
    if "*" in chosen.origins and not chosen.asks_for_tokens:
        yield _finding(
            "origins",
            "* : any web page may connect for its visitors, and no token is asked for",
            "the origins of your own pages",
            "name them in origins",
            "problem",
        )
    if chosen.webhook_private and chosen.webhook_urls:
        yield _finding(
            "webhook_private",
            "on: webhooks go to private addresses and by http://, too",
            "off where it can be",
            "",
            "note",
        )


def _limits(chosen: Settings) -> Iterator[Finding]:
    for name in ("max_per_address", "new_per_second", "messages_per_second"):
        if getattr(chosen, name) == 0:
            yield _finding(
                name, "0: no limit", "a limit", f"set {name}, or see that a proxy limits it", "note"
            )
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < max(_FEW_FILES, chosen.max_connections):
        yield _finding(
            "open files",
            f"{files} in this shell: room for about as many sockets",
            f"{_FEW_FILES} or more",
            "ulimit -n 65536, or LimitNOFILE=65536 in the unit",
            "note",
        )


def _redis(chosen: Settings) -> Iterator[Finding]:
    target = parse_url(chosen.redis_url) if chosen.redis_url else None
    if target is not None and not target.tls and any(not is_loopback(host) for host, _ in target.hosts):
        yield _finding(
            "link to Redis",
            "without TLS" + (", and the password travels in the clear" if target.password else ""),
            "TLS, or a private network",
            "write rediss:// where the server speaks TLS",
            "note",
        )
    if chosen.lease < _SHORT_LEASE:
        yield _finding(
            "lease",
            f"{show_duration(chosen.lease)}: a busy node is soon taken for a lost one",
            f"{show_duration(_SHORT_LEASE)} or more",
            "set lease 5s",
            "note",
        )


def _files(chosen: Settings) -> Iterator[Finding]:
    for name in ("tls_cert", "tls_key", "auth_jwks"):
        path = getattr(chosen, name)
        if path is None:
            continue
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            yield _finding(
                name,
                f"{path} cannot be read: {error.strerror}",
                "a file that the server may read",
                f"set {name}, or the file's permissions",
                "problem",
            )


def _finding(what: str, found: str, wanted: str = "", mend: str = "", severity: Severity = "ok") -> Finding:
    return Subject("settings", what, wanted=wanted or "only what is meant").judged(severity, found, mend)
