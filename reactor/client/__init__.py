"""The Python client: joins rooms, reports who is in them, and reconnects by itself.

The names load on first use, so that the pure parts can be imported without websockets.
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

_HOMES = {
    "Backoff": "backoff", "Client": "client", "Events": "delivery", "MemberPage": "client", "Room": "room",
    "Status": "status",
    "WatchedPeople": "watched_people", "WatchedRoom": "watched_room",
}  # fmt: skip

__all__ = ["Backoff", "Client", "Events", "MemberPage", "Room", "Status", "WatchedPeople", "WatchedRoom"]


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if home := _HOMES.get(name):
        return getattr(import_module(f"reactor.client.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
