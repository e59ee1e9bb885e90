"""Everything that was collected about the servers of a Redis; the checks judge by it.

It does no I/O, but carries the servers' clients.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from redis.asyncio import Redis

from reactor.backend.target import Target
from reactor.presence.format import Format
from reactor.settings import Settings

Address = tuple[str, int]
Role = Literal["primary", "replica"]


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """Seconds by which a server's clock is ahead of this machine's, give or take `margin` seconds."""

    ahead: float
    margin: float


@dataclass(frozen=True, slots=True)
class ExpiryDelays:
    """Seconds from the deadlines of two temporary keys to their `expired` events; None: no event.

    touched: the key that was read at its deadline. untouched: the key left to Redis's active expiry cycle.
    refused: the server's error when the attempt failed. failed_command: the command that got it.
    """

    touched: float | None = None
    untouched: float | None = None
    refused: str = ""
    failed_command: str = ""


@dataclass(frozen=True, slots=True)
class MissingPermission:
    """A permission that the user lacks: the ACL rule that grants it, what for, and the server's error."""

    rule: str
    what: str
    error: str


@dataclass(frozen=True, slots=True)
class KeySample:
    """Keys that this version would not have written: by kind, how many and an example.

    scanned: how many keys were looked at. complete: whether these were all. refused: the server's error.
    """

    scanned: int = 0
    complete: bool = True
    unknown: dict[str, tuple[int, str]] = field(default_factory=dict)
    refused: str = ""


@dataclass(slots=True)
class InspectedServer:
    """One server with data.

    unreachable: why nothing could be collected. open: whether it accepts commands without a password.
    info, config: empty where the server does not show them. refused: the error, by command.
    answered_in: seconds. notices: what nodes report about what is in front of them, by node.
    """

    name: str
    address: Address
    client: Redis
    role: Role = "primary"
    info: dict[str, Any] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    undeclared_keys: str = ""
    """Why the server refused a script that uses a key which it does not declare; empty where it does not."""
    division: str = ""
    """What shows that a proxy divides its keys over several servers; empty where nothing does."""
    refused: dict[str, str] = field(default_factory=dict)
    clock: ClockOffset | None = None
    missing_permissions: list[MissingPermission] = field(default_factory=list)
    expiry: ExpiryDelays | None = None
    keys: KeySample | None = None
    notices: dict[str, list[str]] = field(default_factory=dict)
    open: bool = False
    unreachable: str = ""
    answered_in: float = 0.0

    def setting(self, name: str) -> str | None:
        """A directive of the configuration, or None where the server does not show it."""
        return self.config.get(name)

    def number(self, name: str) -> int | None:
        """A directive that is a whole number, or None where the server does not show it or it is none."""
        value = self.config.get(name, "")
        return int(value) if value.isdigit() else None


@dataclass(slots=True)
class InspectedSentinel:
    """One Sentinel, and its view of the primary (https://redis.io/docs/latest/commands/sentinel-master/)."""

    name: str
    client: Redis
    master: dict[str, Any] = field(default_factory=dict)
    unreachable: str = ""


@dataclass(frozen=True, slots=True)
class SlotMap:
    """A cluster as the first server that answered sees it; ranges include their last slot.

    owners: ranges with the address of their primary.
    """

    state: str
    missing: tuple[tuple[int, int], ...]
    owners: tuple[tuple[int, int, str], ...]

    def owner_of(self, slot: int) -> str:
        """The address of the primary that serves a slot; empty where none does."""
        return next((name for first, last, name in self.owners if first <= slot <= last), "")


@dataclass(slots=True)
class Deployment:
    """A Redis, whatever its shape, with the settings that the server would have.

    unreachable_hosts: addresses of the URL that cannot be reached, with the reason.
    """

    target: Target
    settings: Settings
    servers: list[InspectedServer] = field(default_factory=list)
    sentinels: list[InspectedSentinel] = field(default_factory=list)
    unreachable_hosts: dict[str, str] = field(default_factory=dict)
    slots: SlotMap | None = None
    format: Format | None = None
    """The format of the namespace, or None where it has none yet, or no readable one."""
    format_unreadable: str = ""
    """Why it could not be read; empty where it could."""
    releases: tuple[str, ...] = ()
    """The releases whose nodes used the namespace lately."""

    @property
    def reachable(self) -> list[InspectedServer]:
        """The servers that answered."""
        return [server for server in self.servers if not server.unreachable]

    @property
    def primaries(self) -> list[InspectedServer]:
        """The primaries that answered."""
        return [server for server in self.reachable if server.role == "primary"]

    @property
    def replicas(self) -> list[InspectedServer]:
        """The replicas that answered."""
        return [server for server in self.reachable if server.role == "replica"]

    @property
    def clients(self) -> list[tuple[str, Redis]]:
        """Every server and Sentinel: its address and its client."""
        servers = [(server.name, server.client) for server in self.servers]
        return servers + [(sentinel.name, sentinel.client) for sentinel in self.sentinels]

    def client_of(self, name: str) -> Redis:
        """The client of a server or Sentinel, by its address."""
        return next(client for known, client in self.clients if known == name)


def error_text(error: BaseException) -> str:
    """An error's message as part of a sentence; its type where it has none."""
    return str(error).strip().rstrip(".") or type(error).__name__
