"""What a gateway passes the clients' intents to."""

from typing import Protocol

from reactor.gateway.connection import Connection
from reactor.protocol.intents import Authenticate, Intent


class Handler(Protocol):
    """Acts on the clients' intents. No method may block; `closed` is called once after each `opened`."""

    def opened(self, connection: Connection) -> None:
        """Register a new connection and set its `socket_id`."""

    def intent(self, connection: Connection, intent: Intent) -> None:
        """Act on a client's intent; the reply is sent later with `connection.send`."""

    def charge_reading(self, connection: Connection, payload: bytes, seconds: float) -> None:
        """Charge the time that it took to decode a message that is not small."""
        ...

    def admits(self, connection: Connection, payload: bytes) -> bool:
        """Charge a large message before it is decoded; False where it was refused, and answered."""
        ...

    def admits_token(self, connection: Connection, intent: Authenticate) -> bool:
        """Charge the check of a further token of a connection; False where it was refused, and answered."""
        ...

    def drained(self, connection: Connection) -> None:
        """Continue with a connection that reads again, after what waited for it was written."""

    def closed(self, connection: Connection) -> None:
        """Remove a connection: it receives and sends nothing more."""

    def ready(self) -> tuple[bool, str]:
        """Return whether this node can serve clients now, and the reason."""
        ...
