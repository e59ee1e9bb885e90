"""Settings that are valid, and yet dangerous or probably a mistake."""

import resource
from collections.abc import Iterator
from functools import partial
from time import time

from reactor.backend.target import parse_url
from reactor.doctor.checks import settings_check
from reactor.doctor.finding import Finding, Severity, Subject
from reactor.errors import SettingError
from reactor.settings import Settings
from reactor.settings.certificates import CERTIFICATE_WARNING, certificate_dates, load_certificate
from reactor.settings.kinds import show_duration
from reactor.settings.load import advice
from reactor.settings.security import import_function, is_loopback

_MIN_LEASE = 2.0
_MIN_FILES = 4096
_RENEW = "renew the certificate, put it in its place and send SIGHUP"


@settings_check(order=10)
def settings(chosen: Settings) -> Iterator[Finding]:
    """Judge the settings as a server would load them."""
    findings = [
        *(_finding("settings", line, severity="problem") for line in advice(chosen)),
        *_access(chosen),
        *_limits(chosen),
        *_redis(chosen),
        *_files(chosen),
        *_certificate(chosen),
    ]
    yield from findings or [_finding("settings", "nothing dangerous")]


def _access(chosen: Settings) -> Iterator[Finding]:
    if chosen.requires_tokens and not is_loopback(chosen.host) and chosen.tls_cert is None:
        yield _finding(
            "TLS",
            "off: tokens are sent in clear text, unless a proxy terminates TLS",
            "TLS here or in a proxy",
            "set tls_cert and tls_key, or use a proxy with TLS",
            "note",
        )
    if {"*", "null"} & {*chosen.origins} and not chosen.requires_tokens:
        yield _finding(
            "origins",
            "* or null: any web page may connect for its visitors, and no token is required",
            "the origins of your own pages",
            "set origins to them",
            "problem",
        )
    if chosen.webhook_private and chosen.webhook_urls:
        yield _finding(
            "webhook_private",
            "on: webhooks may be sent to private addresses and by http://",
            "off, if possible",
            "",
            "note",
        )


def _limits(chosen: Settings) -> Iterator[Finding]:
    for name in ("max_per_address", "new_per_second", "messages_per_second"):
        if getattr(chosen, name) == 0:
            yield _finding(name, "0: no limit", "a limit", f"set {name}, or limit it in a proxy", "note")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < max(_MIN_FILES, chosen.max_connections):
        yield _finding(
            "open files",
            f"{files} in this shell: enough for about as many sockets",
            f"{_MIN_FILES} or more",
            "ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit",
            "note",
        )


def _redis(chosen: Settings) -> Iterator[Finding]:
    target = parse_url(chosen.redis_url) if chosen.redis_url else None
    if target is not None and not target.tls and any(not is_loopback(host) for host, _ in target.hosts):
        yield _finding(
            "redis_url",
            "without TLS" + (": the password is sent in clear text" if target.password else ""),
            "TLS, or a private network",
            "use rediss:// if the server supports TLS",
            "note",
        )
    if chosen.lease < _MIN_LEASE:
        yield _finding(
            "lease",
            f"{show_duration(chosen.lease)}: a busy node is soon taken for a dead one",
            f"{show_duration(_MIN_LEASE)} or more",
            "set lease to 5s",
            "note",
        )


def _files(chosen: Settings) -> Iterator[Finding]:
    """Read what a server reads at its start, and does not start without."""
    for name, read in (
        ("tls_cert", _read_certificate),
        ("auth_jwks", _read_public_keys),
        ("auth_hook", partial(_import_hook, "auth_hook")),
        ("people_hook", partial(_import_hook, "people_hook")),
    ):
        if getattr(chosen, name) is None:
            continue
        try:
            read(chosen)
        except SettingError as error:
            yield _finding(name, str(error).rstrip("."), "what a server can start with", "", "problem")


def _read_certificate(chosen: Settings) -> None:
    if chosen.tls_cert is not None and chosen.tls_key is not None:
        load_certificate(chosen.tls_cert, chosen.tls_key)


def _read_public_keys(chosen: Settings) -> None:
    from reactor.settings.public_keys import read_keys  # noqa: PLC0415 - cryptography is slow to import

    if chosen.auth_jwks is not None:
        read_keys(chosen.auth_jwks)


def _import_hook(name: str, chosen: Settings) -> None:
    import_function(name, getattr(chosen, name))


def _certificate(chosen: Settings) -> Iterator[Finding]:
    if chosen.tls_cert is None:
        return
    try:
        begins, expires = certificate_dates(chosen.tls_cert)
    except SettingError:
        return  # `_files` reports it
    wanted = f"valid for {show_duration(CERTIFICATE_WARNING)} or more"
    left = expires - time()
    if left < 0:
        yield _finding("tls_cert", f"{chosen.tls_cert} has expired", wanted, _RENEW, "problem")
    elif left < CERTIFICATE_WARNING:
        days = f"{left / 86_400:.1f} days"
        yield _finding("tls_cert", f"{chosen.tls_cert} expires in {days}", wanted, _RENEW, "note")
    if begins > time():
        found = f"{chosen.tls_cert} is not valid yet"
        yield _finding("tls_cert", found, wanted, "check the clocks here and of its issuer", "problem")


def _finding(what: str, found: str, wanted: str = "", fix: str = "", severity: Severity = "ok") -> Finding:
    return Subject("settings", what, wanted=wanted or "safe values").rated(severity, found, fix)
