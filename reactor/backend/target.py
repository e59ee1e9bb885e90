"""Parses the address of a Redis; no name is resolved and nothing connected. PURE."""

from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from reactor.errors import SettingError
from reactor.settings.kinds import REDIS_SCHEMES, AddressPair, did_you_mean, parse_switch, redacted

Kind = Literal["single", "sentinel", "cluster"]

TLS_OPTIONS = (
    "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname",
)  # fmt: skip
"""Options after `?` that redis-py takes for TLS (https://redis.readthedocs.io/en/stable/examples/ssl_connection_examples.html)."""

SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password", "sentinel_tls")
"""Options after `?` for Sentinels: users of their own, as the user of the address is for the servers, and
whether they use TLS, where that differs from the servers."""

_OPTIONS = ("db", "username", "password", *TLS_OPTIONS)
_CERT_REQS = ("none", "optional", "required")
_PORTS: dict[Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class Target:
    """A Redis to connect to. For a Unix socket `path` is set and `hosts` is empty."""

    kind: Kind
    url: str = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_options: tuple[tuple[str, str], ...] = ()
    master_name: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    sentinel_tls: bool = False
    address_map: tuple[AddressPair, ...] = ()
    credentials: Any = field(default=None, repr=False, compare=False)
    """A `CredentialProvider` of redis-py in place of user name and password; None for those."""

    @property
    def acl_user(self) -> str:
        """The name of the Redis user: without one it is `default`."""
        return self.username or "default"

    def reachable(self, named: tuple[str, int]) -> tuple[str, int]:
        """The address under which a server is reached that a cluster or a Sentinel names so."""
        places = dict(self.address_map)
        place = places.get(named) or places.get((named[0], None)) or named
        return place[0], place[1] or named[1]

    def __str__(self) -> str:
        """The address without its password."""
        return redacted(self.url)


def parse_url(url: str) -> Target:
    """Parse the address of a Redis.

    The forms are `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]`, `rediss://...` (TLS),
    `unix://[[USER]:PASSWORD@]/PATH[?db=DB]`, `redis+sentinel://HOST:PORT,HOST:PORT/NAME[/DB]` (where the
    Sentinels have a password of their own, `?sentinel_password=PASSWORD`) and
    `redis+cluster://HOST:PORT,HOST:PORT[/DB]`; `rediss+sentinel` and `rediss+cluster` are these with TLS, to
    the Sentinels as well unless `?sentinel_tls=no` is given. Whether a cluster has the database shows only
    when it is connected to: Valkey 9 can have several.
    Raises SettingError; its line does not show the password.
    """
    parts = _split(url)
    scheme, _, suffix = parts.scheme.partition("+")
    kind: Kind = "sentinel" if suffix == "sentinel" else "cluster" if suffix == "cluster" else "single"
    options = _options(url, parts.query, (*_OPTIONS, *(SENTINEL_OPTIONS if kind == "sentinel" else ())))
    user, password, place = _split_login(parts)
    segments = [unquote(part) for part in parts.path.split("/") if part]
    path = None
    if scheme == "unix":
        path, segments = unquote(place + parts.path), []
        if not path.startswith("/"):
            raise _wrong(url, "names no socket; use three slashes, as in unix:///run/redis.sock")
    if kind == "sentinel" and not segments:
        raise _wrong(url, "lacks the name of the primary, as in redis+sentinel://host:26379/mymaster")
    return Target(
        kind=kind,
        url=url,
        hosts=() if path else _split_hosts(url, place, _PORTS[kind]),
        path=path,
        master_name=segments.pop(0) if kind == "sentinel" else None,
        db=_database(url, options.get("db"), segments),
        username=options.get("username") or user,
        password=options.get("password") or password,
        tls=scheme == "rediss",
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        sentinel_tls=_switch(
            url,
            "sentinel_tls",
            options.get("sentinel_tls"),
            default=scheme == "rediss" and kind == "sentinel",
        ),
        tls_options=tuple((name, value) for name, value in options.items() if name in TLS_OPTIONS),
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _wrong(url, f"cannot be parsed: {error}") from None
    if parts.scheme not in REDIS_SCHEMES:
        raise _wrong(
            url, "has to begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        )
    split_password = "@" not in parts.netloc and "@" in parts.path + parts.query and parts.scheme != "unix"
    if "#" in url or split_password:
        raise _wrong(
            url, "has reserved characters in its password; write # as %23, / as %2F, ? as %3F and @ as %40"
        )
    return parts


def _options(url: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in known:
            raise _wrong(url, f"has an unknown option, {name}; the options are {', '.join(known)}", name)
    if (chosen := options.get("ssl_cert_reqs", "required")) not in _CERT_REQS:
        raise _wrong(url, f'has "{chosen}" for ssl_cert_reqs, which takes {", ".join(_CERT_REQS)}')
    _switch(url, "ssl_check_hostname", options.get("ssl_check_hostname"), default=True)
    return options


def _switch(url: str, name: str, value: str | None, *, default: bool) -> bool:
    if value is None:
        return default
    try:
        return parse_switch(value)
    except ValueError:
        raise _wrong(url, f'has "{value}" for {name}, which takes yes or no') from None


def _database(url: str, option: str | None, segments: list[str]) -> int:
    number = option or "/".join(segments) or "0"
    if not (number.isascii() and number.isdigit()):
        raise _wrong(url, f'has "{number}" where the database number belongs, as in redis://host:6379/0')
    return int(number)


def _split_login(parts: SplitResult) -> tuple[str | None, str | None, str]:
    login, at, place = parts.netloc.rpartition("@")
    if not at:
        return None, None, place
    user, _, password = login.partition(":")
    return unquote(user) or None, unquote(password) or None, place


def _split_hosts(url: str, place: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for text in place.split(","):
        address = urlsplit(f"//{text}")
        try:
            host, port = address.hostname, address.port
        except ValueError:
            raise _wrong(url, f'has "{text}" where a host and a port from 1 to 65535 are expected') from None
        if not host or port == 0:
            raise _wrong(url, "lacks a host and port, as in redis://127.0.0.1:6379")
        hosts.append((host, port or default_port))
    return tuple(hosts)


def _wrong(url: str, what: str, word: str = "") -> SettingError:
    hint = did_you_mean(word, _OPTIONS) if word else ""
    return SettingError(f"The Redis address {redacted(url)} {what}.{hint}")
