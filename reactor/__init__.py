"""Room presence over Redis and WebSockets: who is in which room right now.

The public names load on first use, so that importing a pure part of the package pulls in no I/O library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reactor.client.backoff import Backoff as Backoff
    from reactor.client.client import Client as Client
    from reactor.client.client import MemberPage as MemberPage
    from reactor.client.delivery import Events as Events
    from reactor.client.room import Room as Room
    from reactor.client.status import Status as Status
    from reactor.client.watched_people import WatchedPeople as WatchedPeople
    from reactor.client.watched_room import WatchedRoom as WatchedRoom
    from reactor.errors import AddressInUse as AddressInUse
    from reactor.errors import ConnectionClosed as ConnectionClosed
    from reactor.errors import EmbeddedServerError as EmbeddedServerError
    from reactor.errors import ForceLeave as ForceLeave
    from reactor.errors import FormatMismatch as FormatMismatch
    from reactor.errors import NotJoined as NotJoined
    from reactor.errors import ReactorError as ReactorError
    from reactor.errors import RedisMisconfigured as RedisMisconfigured
    from reactor.errors import RedisTooOld as RedisTooOld
    from reactor.errors import RedisUnreachable as RedisUnreachable
    from reactor.errors import Refused as Refused
    from reactor.errors import RequestTimedOut as RequestTimedOut
    from reactor.errors import RoomFull as RoomFull
    from reactor.errors import ServerUnreachable as ServerUnreachable
    from reactor.errors import SettingError as SettingError
    from reactor.errors import TokenFailed as TokenFailed
    from reactor.errors import Unavailable as Unavailable
    from reactor.gateway.auth import Arrival as Arrival
    from reactor.presence.api import Presence as Presence
    from reactor.presence.api import RoomInfo as RoomInfo
    from reactor.presence.rows import Departure as Departure
    from reactor.protocol.events import JoinEvent as JoinEvent
    from reactor.protocol.events import LeaveEvent as LeaveEvent
    from reactor.protocol.events import RoomEvent as RoomEvent
    from reactor.protocol.events import SyncEvent as SyncEvent
    from reactor.protocol.events import UpdateEvent as UpdateEvent
    from reactor.protocol.identity import Identity as Identity
    from reactor.protocol.identity import Unauthorised as Unauthorised
    from reactor.protocol.messages import Member as Member
    from reactor.protocol.messages import Person as Person
    from reactor.protocol.messages import RoomMessage as RoomMessage
    from reactor.running import RunningServer as RunningServer
    from reactor.running import serving as serving
    from reactor.settings import Settings as Settings

__version__ = "0.1.0"

_NAMES = {
    "client.backoff": ["Backoff"],
    "client.client": ["Client", "MemberPage"],
    "client.delivery": ["Events"],
    "client.room": ["Room"],
    "client.status": ["Status"],
    "client.watched_people": ["WatchedPeople"],
    "client.watched_room": ["WatchedRoom"],
    "errors": [
        "AddressInUse", "ConnectionClosed", "EmbeddedServerError", "ForceLeave", "FormatMismatch",
        "NotJoined", "ReactorError", "RedisMisconfigured", "RedisTooOld", "RedisUnreachable", "Refused",
        "RequestTimedOut", "RoomFull", "ServerUnreachable", "SettingError", "TokenFailed", "Unavailable",
    ],
    "gateway.auth": ["Arrival"],
    "presence.api": ["Presence", "RoomInfo"],
    "presence.rows": ["Departure"],
    "protocol.events": ["JoinEvent", "LeaveEvent", "RoomEvent", "SyncEvent", "UpdateEvent"],
    "protocol.identity": ["Identity", "Unauthorised"],
    "protocol.messages": ["Member", "Person", "RoomMessage"],
    "running": ["RunningServer", "serving"],
    "settings": ["Settings"],
}  # fmt: skip
_HOMES = {name: f"reactor.{module}" for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - all of these are text


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if home := _HOMES.get(name):
        try:
            module = import_module(home)
        except ModuleNotFoundError as error:
            if (error.name or "reactor").partition(".")[0] == "reactor":
                raise
            sentence = f"reactor.{name} needs {error.name}: pip install 'reactor-presence[server]'."
            raise ModuleNotFoundError(sentence, name=error.name) from error
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
