"""What was seen of a Redis, whatever its shape; the checks judge by it. PURE but for the clients it holds."""

from dataclasses import dataclass, field
from typing import Any, Literal

from redis.asyncio import Redis

from reactor.backend.target import Target
from reactor.settings import Settings

Address = tuple[str, int]
Role = Literal["primary", "replica"]


@dataclass(frozen=True, slots=True)
class Clock:
    """How far a server's clock is ahead of this machine's, and by how much that may be wrong; seconds."""

    ahead: float
    margin: float


@dataclass(frozen=True, slots=True)
class Expiry:
    """How late the events of two throwaway keys came, in seconds after their deadlines; None: not at all.

    refused: why it could not be tried, in the server's words; what: which of the commands was refused.
    """

    touched: float | None = None
    untouched: float | None = None
    refused: str = ""
    what: str = ""


@dataclass(frozen=True, slots=True)
class Right:
    """A right that the user lacks: the rule that gives it, what for, and what the server said."""

    rule: str
    what: str
    said: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys that are not as this version writes them, by what they look like: how many, and one of them."""

    seen: int = 0
    whole: bool = True
    strange: dict[str, tuple[int, str]] = field(default_factory=dict)
    refused: str = ""


@dataclass(slots=True)
class Server:
    """One server with data. `unreachable` says why nothing could be looked at.

    `open`: whoever gives no password comes in, too. `info` and `config` are empty where the server does not
    show them; `refused` says why, by command.
    """

    name: str
    address: Address
    client: Redis
    role: Role = "primary"
    info: dict[str, Any] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    clock: Clock | None = None
    rights: list[Right] = field(default_factory=list)
    expiry: Expiry | None = None
    keys: Keys | None = None
    open: bool = False
    unreachable: str = ""
    answered_in: float = 0.0

    def setting(self, name: str) -> str | None:
        """A directive of the configuration, or None where it cannot be seen."""
        return self.config.get(name)

    def number(self, name: str) -> int | None:
        """The same as a whole number."""
        value = self.config.get(name, "")
        return int(value) if value.isdigit() else None


@dataclass(slots=True)
class Sentinel:
    """One Sentinel, and what it says of the primary (https://redis.io/docs/latest/commands/sentinel-master/)."""

    name: str
    client: Redis
    master: dict[str, Any] = field(default_factory=dict)
    unreachable: str = ""


@dataclass(frozen=True, slots=True)
class Slots:
    """A cluster as the first node that answered sees it; a range ends with its last slot.

    owners: ranges with the address of their primary.
    """

    state: str
    missing: tuple[tuple[int, int], ...]
    owners: tuple[tuple[int, int, str], ...]

    def owner_of(self, slot: int) -> str:
        """The address of the primary that has a slot, or nothing."""
        return next((name for first, last, name in self.owners if first <= slot <= last), "")


@dataclass(slots=True)
class Patient:
    """A Redis under examination, with the settings that the server would have."""

    target: Target
    settings: Settings
    servers: list[Server] = field(default_factory=list)
    sentinels: list[Sentinel] = field(default_factory=list)
    seeds: dict[str, str] = field(default_factory=dict)
    """Addresses of the URL that lead nowhere, with the reason."""
    slots: Slots | None = None

    @property
    def seen(self) -> list[Server]:
        """The servers that answered."""
        return [server for server in self.servers if not server.unreachable]

    @property
    def primaries(self) -> list[Server]:
        """Those of them that take writes."""
        return [server for server in self.seen if server.role == "primary"]

    @property
    def replicas(self) -> list[Server]:
        """Those of them that follow a primary."""
        return [server for server in self.seen if server.role == "replica"]

    @property
    def clients(self) -> list[tuple[str, Redis]]:
        """Every address with its client."""
        servers = [(server.name, server.client) for server in self.servers]
        return servers + [(sentinel.name, sentinel.client) for sentinel in self.sentinels]

    def client_of(self, name: str) -> Redis:
        """The client of a server or Sentinel, by its address."""
        return next(client for known, client in self.clients if known == name)
