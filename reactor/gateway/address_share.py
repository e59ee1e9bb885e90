"""What a node keeps because clients asked for it, counted by the address that asked first. PURE.

The limits of one connection do not bound this: an address may have a thousand connections.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

CONNECTIONS: Final = 50
"""Connections of one address that may use all that each of them may; further ones what the others leave."""


class AddressShare:
    """Keys that are kept, each for the address that asked for it first.

    Args:
        of_connection: Keys that one connection may ask for.

    """

    def __init__(self, of_connection: int) -> None:
        self._most = CONNECTIONS * of_connection
        self._owners: dict[str, str] = {}
        self._owned: Counter[str] = Counter()

    def take(self, connection: Any, keys: Iterable[str]) -> bool:
        """Count the keys that are not kept yet; False, and none is counted, if those are too many."""
        address = connection.address
        new = [key for key in keys if key not in self._owners]
        if address is None or not new:
            return True
        if self._owned[address.name] + len(new) > self._most * address.factor:
            return False
        self._owned[address.name] += len(new)
        self._owners.update(dict.fromkeys(new, address.name))
        return True

    def release(self, keys: Iterable[str]) -> None:
        """Count keys no more; those that are not counted are ignored."""
        for key in keys:
            owner = self._owners.pop(key, None)
            if owner is not None:
                self._owned[owner] -= 1
                if not self._owned[owner]:
                    del self._owned[owner]
