"""Room presence over Redis and WebSockets: who is in which room right now.

The public names load on first use, so that importing a pure part of the package pulls in no I/O library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reactor.client import Client as Client
    from reactor.gateway.auth import Arrival as Arrival
    from reactor.presence.api import Presence as Presence
    from reactor.protocol.identity import Identity as Identity
    from reactor.protocol.identity import Unauthorised as Unauthorised
    from reactor.settings import Settings as Settings

__version__ = "0.1.0"
__all__ = ["Arrival", "Client", "Identity", "Presence", "Settings", "Unauthorised", "__version__"]

_HOMES = {
    "Arrival": "reactor.gateway.auth",
    "Client": "reactor.client",
    "Identity": "reactor.protocol.identity",
    "Presence": "reactor.presence.api",
    "Settings": "reactor.settings",
    "Unauthorised": "reactor.protocol.identity",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if home := _HOMES.get(name):
        return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
