"""All settings: names, defaults, accepted values, help texts.

A setting has one name everywhere: `ttl` here and in the file, `REACTOR_TTL` in the environment, `--ttl` as a
flag.
"""

import re
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from reactor.settings import kinds
from reactor.settings.admin import ADMIN_KEY, check_admin
from reactor.settings.kinds import AddressPair, Kind, duration, setting, size, whole
from reactor.settings.origins import ORIGINS
from reactor.settings.rooms import DEMO_PREFIX, DEMO_TTL, GRACE, MESSAGE, TTL, RoomPolicy, RoomRule
from reactor.settings.secret_files import SECRET_FILES, read_secret, with_password
from reactor.settings.security import (
    AUTH_CLAIM,
    AUTH_HOOK,
    AUTH_ROOMS,
    AUTH_SECRET,
    HOSTS,
    LOOPBACK,
    NETWORKS,
    Network,
    check_tls,
    is_loopback,
)
from reactor.settings.webhooks import (
    ROOM_EVENTS,
    WEBHOOK_EVENTS,
    WEBHOOK_SECRETS,
    WEBHOOK_URLS,
    check_webhooks,
)

__all__ = ["RoomPolicy", "RoomRule", "Settings", "setting_fields"]


AWAY_GRACE = 300.0
"""Seconds to return for a member who is away, by default: a phone closes the socket of an app in the
background within a minute, and its user may look at another app for a while."""


_NO_RULE = RoomRule(match="*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Times are seconds, sizes are bytes; both may be given as text (`Settings(ttl="10m")`).

    Raises SettingError for the first invalid value.
    """

    host: str = setting(
        "127.0.0.1",
        kinds.text("a host name or an address", r"[^\s/]{1,253}"),
        "Address",
        "address to listen on; 0.0.0.0 for all addresses",
    )
    port: int = setting(8765, whole(0, 65535, " (0 for any free one)"), "Address", "port to listen on")
    origins: tuple[str, ...] = setting(
        (), ORIGINS, "Address", "origins of the web pages that may connect",
        none="any if tokens are required, else those of this host and of loopback",
    )  # fmt: skip
    allowed_hosts: tuple[str, ...] = setting(
        (), HOSTS, "Address", "names by which pages may reach this server where no tokens are required",
        none="addresses, local names, and any that a trusted proxy passes on",
    )  # fmt: skip
    tls_cert: Path | None = setting(
        None, kinds.PATH, "Address", "certificate chain (PEM); reloaded on SIGHUP", none="no TLS"
    )
    tls_key: Path | None = setting(
        None, kinds.PATH, "Address", "private key of the certificate (PEM)", none="no TLS"
    )
    trusted_proxies: tuple[Network, ...] = setting(
        LOOPBACK, NETWORKS, "Address", "proxies whose X-Forwarded-For header is trusted"
    )

    auth_secret: bytes | None = setting(
        None, AUTH_SECRET, "Tokens", "secret for HS256 tokens; safer in the environment than as a flag",
        none="none", secret=True,
    )  # fmt: skip
    auth_secret_file: Path | None = setting(
        None,
        kinds.PATH,
        "Tokens",
        "file with the auth_secret; read again on SIGHUP",
        none="none",
        secret=True,
    )
    auth_jwks: Path | None = setting(
        None, kinds.PATH, "Tokens", "file with public keys (JWKS); reloaded when it changes", none="none"
    )
    auth_hook: str | None = setting(
        None, AUTH_HOOK, "Tokens", "your own authenticator, as module:function", none="none"
    )
    auth_audience: str | None = setting(
        None, AUTH_CLAIM, "Tokens", "required claim aud of tokens", none="not checked"
    )
    auth_issuer: str | None = setting(
        None, AUTH_CLAIM, "Tokens", "required claim iss of tokens", none="not checked"
    )
    auth_rooms: tuple[str, ...] = setting(
        (), AUTH_ROOMS, "Tokens", "rooms for tokens without a claim rooms; * for all", none="none"
    )
    auth_leeway: float = setting(
        5.0,
        duration(0.0, 300.0),
        "Tokens",
        "tolerated difference of the token issuer's clock",
    )
    auth_timeout: float = setting(
        10.0, duration(0.05, 600.0), "Tokens", "time to send a token after the connection is opened"
    )
    auth_grace: float = setting(
        25.0, duration(0.0, 3600.0), "Tokens", "time to send a new token after one has expired"
    )
    revocation_kept: float = setting(
        2_592_000.0, duration(60.0), "Tokens", "how long a revocation holds: at least as long as tokens live"
    )

    redis_url: str | None = setting(
        None,
        kinds.REDIS_URL,
        "Redis",
        "the Redis or Valkey to use",
        none="an embedded server, without persistence",
        secret=True,
    )
    redis_url_file: Path | None = setting(
        None, kinds.PATH, "Redis", "file with the redis_url", none="none", secret=True
    )
    redis_password_file: Path | None = setting(
        None, kinds.PATH, "Redis", "file with the password of redis_url; read for each new connection",
        none="none", secret=True,
    )  # fmt: skip
    redis_credentials: str | None = setting(
        None, AUTH_HOOK, "Redis",
        "your own function, as module:function, that returns the password of a new connection, or (user, "
        "password)", none="those of redis_url",
    )  # fmt: skip
    redis_address_map: tuple[AddressPair, ...] = setting(
        (), kinds.ADDRESS_MAP, "Redis",
        "addresses that a cluster or Sentinels name, and those under which they are reached", none="the same",
    )  # fmt: skip
    manage_redis: bool = setting(
        True, kinds.SWITCH, "Redis", "switch on expired events in Redis where they are off (CONFIG SET)"
    )
    namespace: str = setting(
        "reactor",
        kinds.text("1 to 64 letters, digits or . _ -", r"[A-Za-z0-9._-]{1,64}"),
        "Redis",
        "first part of every key",
    )
    shards: int | None = setting(
        None, whole(1, 256), "Redis",
        "into how many parts a new namespace is divided; an existing one has to have as many",
        none="16, and 96 on a cluster",
    )  # fmt: skip
    departures_kept: int = setting(
        100_000, whole(0, 100_000_000), "Redis", "departures kept in each shard, approximately"
    )
    departures_bytes: int = setting(
        8 * 1024 * 1024, size(65536, 1024 * 1024 * 1024), "Redis",
        "bytes of departures, and of changes for webhooks, that are kept in each shard",
    )  # fmt: skip
    departures_age: float = setting(
        30 * 86400.0, duration(1.0, off=True), "Redis", "time for which departures are kept; 0 for any"
    )

    ttl: float = setting(21600.0, TTL, "Presence", "time that a member stays without a heartbeat")
    grace: float = setting(15.0, GRACE, "Presence", "time to return after the last connection was lost")
    away_grace: float | None = setting(
        None,
        GRACE,
        "Presence",
        "the same for a member who is away",
        none="5m, or the grace if that is longer",
    )
    close_grace: float = setting(
        5.0, GRACE, "Presence", "the same for a page that was closed or reloaded; at most the grace"
    )
    heartbeat_interval: float = setting(
        25.0, duration(0.05, 86400.0), "Presence", "interval at which clients are asked to send heartbeats"
    )
    inactivity_message: str = setting(
        "You left the room because you were inactive for too long.",
        MESSAGE,
        "Presence",
        "message to a member whose presence expired",
    )

    people: bool = setting(
        True, kinds.SWITCH, "People", "keep an index of users: online, last seen, in which rooms"
    )
    last_seen_kept: float = setting(
        30 * 86400.0, duration(1.0, off=True), "People",
        "time for which it is kept when users were last seen; 0 for not at all",
    )  # fmt: skip
    last_seen_users: int = setting(
        4_000_000, whole(1, 1_000_000_000), "People", "users of whom that is kept, the latest"
    )
    people_hook: str | None = setting(
        None, AUTH_HOOK, "People", "your own function, as module:function, that says whom a user may watch",
        none="none",
    )  # fmt: skip

    pacemaker: bool = setting(True, kinds.SWITCH, "Expiry", "touch each key at its deadline")
    listener: bool = setting(True, kinds.SWITCH, "Expiry", "subscribe to Redis's expired events")
    sweep_interval: float = setting(
        60.0,
        duration(0.05, 86400.0, off=True),
        "Expiry",
        "interval of the sweep, which repairs what was missed",
    )
    lease: float = setting(
        5.0, duration(0.1, 3600.0), "Expiry", "time for which a node without a sign of life counts as alive"
    )

    max_members_view: int = setting(
        1000,
        whole(0, 1_000_000),
        "Rooms",
        "largest room that is sent as a list of members; larger ones are sent as a count",
    )
    diff_window: float = setting(
        0.05, duration(0.0, 10.0), "Rooms", "time for which changes of a room are collected and sent together"
    )
    recent_diffs: int = setting(
        16 * 1024 * 1024, size(0, 1 << 40), "Rooms",
        "recent changes of rooms, kept so that clients which return need no list; 0 for none",
    )  # fmt: skip
    member_messages: bool = setting(
        True, kinds.SWITCH, "Rooms", "messages of members to each other (room:send)"
    )
    max_rooms: int = setting(128, whole(1, 100_000), "Rooms", "rooms that one connection may join")

    max_watched: int = setting(
        256, whole(1, 100_000), "Rooms", "rooms that one connection may watch without joining them"
    )

    ping_interval: float = setting(
        25.0, duration(0.05, 86400.0, off=True), "Connections", "interval of WebSocket pings"
    )
    ping_timeout: float = setting(20.0, duration(0.05, 86400.0), "Connections", "time to answer a ping")
    open_timeout: float = setting(5.0, duration(0.05, 600.0), "Connections", "time for the opening handshake")
    close_timeout: float = setting(
        5.0, duration(0.05, 600.0), "Connections", "time for the closing handshake"
    )
    message_timeout: float = setting(
        30.0, duration(0.05, 600.0), "Connections", "time in which a whole message has to arrive"
    )
    send_buffer: int = setting(
        1024 * 1024,
        size(1024, 1024 * 1024 * 1024),
        "Connections",
        "output that may wait for a slow client",
    )
    send_buffers: int = setting(
        64 * 1024 * 1024, size(64 * 1024, 1 << 40), "Connections",
        "output that may wait for all slow clients together; the one with most is closed first",
    )  # fmt: skip
    send_timeout: float = setting(
        20.0, duration(0.05, 86400.0), "Connections", "time for which a slow client may read nothing"
    )
    compression: bool = setting(False, kinds.SWITCH, "Connections", "permessage-deflate (RFC 7692)")
    drain_seconds: float = setting(
        5.0,
        duration(0.0, 600.0),
        "Connections",
        "time over which a stopping server closes connections",
    )

    max_message: int = setting(65536, size(256, 16 * 1024 * 1024), "Limits", "size of one message")
    max_headers: int = setting(
        16384, size(1024, 1024 * 1024), "Limits", "size of the request line and headers of an HTTP request"
    )
    max_id: int = setting(256, size(1, 4096), "Limits", "size of a room or user id, in UTF-8")
    max_data: int = setting(4096, size(0, 1024 * 1024), "Limits", "size of a member's data, in JSON")
    max_connections: int = setting(
        0, whole(0, 10_000_000, " (0 for as many as open files allow)"), "Limits",
        "connections of one process; 0 for as many as open files allow",
    )  # fmt: skip
    max_per_address: int = setting(
        1000, whole(0, 1_000_000, " (0 for no limit)"), "Limits",
        "connections of one address (of a /64 with IPv6); 0 for no limit",
    )  # fmt: skip
    max_unjoined_per_address: int = setting(
        100, whole(0, 1_000_000, " (0 for no limit)"), "Limits",
        "connections of one address that have joined no room and shown no token; 0 for no limit",
    )  # fmt: skip
    new_per_second: int = setting(
        20, whole(0, 100_000, " (0 for no limit)"), "Limits",
        "new connections a second of one address, twice as many at once; 0 for no limit",
    )  # fmt: skip
    max_per_user: int = setting(
        32, whole(0, 1_000_000, " (0 for no limit)"), "Limits",
        "connections of one user in a room and, with tokens, to one process; 0 for no limit",
    )  # fmt: skip
    messages_per_second: int = setting(
        20, whole(0, 100_000, " (0 for no limit)"), "Limits",
        "messages a second of one connection; 0 for no limit",
    )  # fmt: skip
    max_people: int = setting(
        1000, whole(1, 100_000), "Limits", "users whose presence one connection may watch"
    )
    message_burst: int = setting(60, whole(1, 100_000), "Limits", "messages of one connection at once")

    cost_per_second: int = setting(
        400, whole(0, 10_000_000, " (0 for no limit)"), "Limits",
        "work a second that one connection may ask for, in units of about 0.1 ms; 0 for no limit",
    )  # fmt: skip
    cost_burst: int = setting(4000, whole(1, 100_000_000), "Limits", "work at once of one connection")

    webhook_urls: tuple[str, ...] = setting(
        (),
        WEBHOOK_URLS,
        "Webhooks",
        "endpoints that are notified when members join and leave",
        none="none",
        secret=True,
    )
    webhook_urls_file: Path | None = setting(
        None, kinds.PATH, "Webhooks", "file with the webhook_urls", none="none", secret=True
    )
    webhook_secrets: tuple[bytes, ...] = setting(
        (), WEBHOOK_SECRETS, "Webhooks", "secrets that sign requests; two while one replaces the other",
        none="none", secret=True,
    )  # fmt: skip
    webhook_secrets_file: Path | None = setting(
        None,
        kinds.PATH,
        "Webhooks",
        "file with the webhook_secrets; read again on SIGHUP",
        none="none",
        secret=True,
    )
    webhook_events: tuple[str, ...] = setting(ROOM_EVENTS, WEBHOOK_EVENTS, "Webhooks", "events that are sent")
    webhook_private: bool = setting(
        False, kinds.SWITCH, "Webhooks", "also send to private addresses, and by http://"
    )

    admin_port: int | None = setting(
        None, whole(0, 65535, " (0 for any free one)"), "Admin",
        "port of the admin API, its page and the metrics; each further worker uses the next port", none="off",
    )  # fmt: skip
    admin_host: str = setting(
        "127.0.0.1", kinds.text("a host name or an address", r"[^\s/]{1,253}"), "Admin",
        "address of the admin port",
    )  # fmt: skip
    admin_key: bytes | None = setting(
        None, ADMIN_KEY, "Admin", "key of the admin API; safer in the environment than as a flag",
        none="none", secret=True,
    )  # fmt: skip
    admin_key_file: Path | None = setting(
        None, kinds.PATH, "Admin", "file with the admin_key; read again on SIGHUP", none="none", secret=True
    )

    workers: int = setting(
        1,
        whole(1, 256),
        "Process",
        "server processes",
    )
    log_level: str = setting(
        "info", kinds.choice("debug", "info", "warning", "error"), "Process", "lowest level that is logged"
    )
    log_format: str = setting(
        "auto",
        kinds.choice("auto", "console", "json"),
        "Process",
        "auto is console in a terminal, otherwise JSON",
    )
    tracing: bool = setting(
        False,
        kinds.SWITCH,
        "Process",
        "OpenTelemetry spans of joins and expiries, sent as OTEL_… variables say",
    )
    config: Path | None = setting(
        None, kinds.PATH, "Process", "TOML file with settings and rules for rooms", none="no file"
    )

    rooms: tuple[RoomRule, ...] = ()
    _patterns: tuple[tuple[re.Pattern[str], RoomRule], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for item in setting_fields():
            value = getattr(self, item.name)
            if value is not None or item.default is not None:
                kind: Kind = item.metadata["kind"]
                object.__setattr__(self, item.name, kind.read(item.name, value))
        self._read_secret_files()
        check_tls(self.tls_cert, self.tls_key)
        check_admin(self.admin_port, self.admin_key, self.workers)
        check_webhooks(self.webhook_urls, self.webhook_secrets, private=self.webhook_private)
        object.__setattr__(self, "_patterns", tuple((rule.pattern(), rule) for rule in self.rooms))

    def _read_secret_files(self) -> None:
        """Read the files of secrets that are not known yet."""
        kinds_of = {item.name: item.metadata["kind"] for item in setting_fields()}
        for name, file_name in SECRET_FILES.items():
            path = getattr(self, file_name)
            if path is not None and not getattr(self, name):
                value = kinds_of[name].read(f"{file_name} {path}", read_secret(file_name, path))
                object.__setattr__(self, name, value)
        if self.redis_password_file is not None:
            url = with_password(self.redis_url, self.redis_password_file)
            object.__setattr__(self, "redis_url", url)

    @property
    def admin_tls(self) -> bool:
        """Whether the admin port uses TLS: if it is not on loopback, and there is a certificate."""
        return self.tls_cert is not None and not is_loopback(self.admin_host)

    @property
    def requires_tokens(self) -> bool:
        """Whether clients have to authenticate with a token."""
        return bool(self.auth_secret or self.auth_jwks or self.auth_hook)

    def policy(self, room_id: str) -> RoomPolicy:
        """The policy of a room: of the rule with its exact name, else of the first pattern that matches."""
        return self.policy_under(_NO_RULE, room_id)

    def policy_under(self, first: RoomRule, room_id: str) -> RoomPolicy:
        """The policy of a room, if `first` takes precedence over all other rules."""
        exact = (rule for rule in self.rooms if rule.match == room_id)
        by_pattern = (rule for pattern, rule in self._patterns if pattern.fullmatch(room_id))
        rule = next(exact, None) or next(by_pattern, None) or self._built_in(room_id)
        ttl = _first(first.ttl, rule.ttl, self.ttl)
        # A grace can only shorten the TTL.
        grace = min(_first(first.grace, rule.grace, self.grace), ttl)
        away_grace = min(
            _first(first.away_grace, rule.away_grace, self.away_grace, max(grace, AWAY_GRACE)), ttl
        )
        close_grace = min(_first(first.close_grace, rule.close_grace, self.close_grace), grace)
        return RoomPolicy(
            ttl=round(ttl * 1000),
            grace=round(grace * 1000),
            away_grace=round(away_grace * 1000),
            close_grace=round(close_grace * 1000),
            message=first.message or rule.message or self.inactivity_message,
            max_members=(first.max_members if first.max_members is not None else rule.max_members) or 0,
        )

    def _built_in(self, room_id: str) -> RoomRule:
        """What applies in a room for which the file has no rule."""
        is_demo = room_id.startswith(DEMO_PREFIX) and self.ttl > DEMO_TTL
        return RoomRule(match="*", ttl=DEMO_TTL) if is_demo else _NO_RULE


def setting_fields() -> Iterator[Field[Any]]:
    """The fields that are settings, in the order of the help."""
    return (item for item in fields(Settings) if "kind" in item.metadata)


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
