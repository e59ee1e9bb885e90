"""Messages that arrive while the first token is being checked: kept as received, within a budget. PURE.

Decoded, a message can take many times its size, and its sender has not proved who it is.
"""

from reactor.protocol.byte_budget import ByteBudget
from reactor.protocol.messages import ProtocolError

CONNECTION_BYTES = 256 * 1024
"""Most bytes of one connection, unless `max_message` is larger."""
NODE_BYTES = 16 * 1024 * 1024
"""Most bytes of all connections together, beyond the free ones."""


class EarlyBudget:
    """How many early messages a connection may have, and the bytes of those of all connections."""

    def __init__(self, max_messages: int, max_message: int) -> None:
        self.max_messages = max_messages
        self.bytes = ByteBudget(max(CONNECTION_BYTES, max_message), NODE_BYTES)


class EarlyMessages:
    """The early messages of one connection."""

    __slots__ = ("_budget", "_bytes", "_payloads")

    def __init__(self, budget: EarlyBudget) -> None:
        self._budget = budget
        self._payloads: list[bytes] = []
        self._bytes = 0

    def keep(self, payload: bytes) -> None:
        """Keep a message.

        Raises:
            ProtocolError: `too_many_pending`; the message is not kept.

        """
        budget = self._budget
        if len(self._payloads) >= budget.max_messages or not budget.bytes.has_place(
            self._bytes, len(payload)
        ):
            waiting = f"{len(self._payloads)} requests are waiting for the token's check"
            raise ProtocolError("too_many_pending", f"{waiting}: wait for the reply to auth")
        self._payloads.append(payload)
        self._bytes = budget.bytes.change(self._bytes, len(payload))

    def take_all(self) -> list[bytes]:
        """Return the messages in their order, and keep none."""
        payloads, self._payloads = self._payloads, []
        self._bytes = self._budget.bytes.change(self._bytes, -self._bytes)
        return payloads
