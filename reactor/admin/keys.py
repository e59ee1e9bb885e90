"""Who may use the admin API: whoever has the key."""

import asyncio
import hmac
from hashlib import sha256
from time import monotonic

import structlog

log = structlog.get_logger()

WRONG_A_MINUTE = 10
"""Wrong keys that one address may show in a minute before it is told to wait."""
ANSWERED_AFTER = 0.25
"""Seconds until a wrong key is told so."""
ADDRESSES = 1000
WAITING = 32
"""Wrong keys that may wait for their answer at a time."""


class Keys:
    """Compares keys in constant time; slows down and counts wrong ones. A right one is always let in."""

    def __init__(self, key: bytes) -> None:
        self._digest = sha256(key).digest()
        self._wrong: dict[str, tuple[float, int]] = {}
        self._waiting = 0

    def right(self, authorization: str, api_key: str) -> bool:
        """Whether `Authorization: Bearer KEY`, or else `X-API-Key: KEY`, has the key."""
        scheme, _, credentials = authorization.partition(" ")
        shown = credentials.strip() if scheme.lower() == "bearer" else api_key
        digest = sha256(shown.encode("latin-1", "replace")).digest()
        return hmac.compare_digest(digest, self._digest)

    async def refuse(self, address: str) -> int:
        """Take note of a wrong key; after a moment, seconds to wait before the next one, or 0."""
        now = monotonic()
        since, count = self._wrong.get(address, (now, 0))
        if now - since >= 60:
            since, count = now, 0
        if len(self._wrong) >= ADDRESSES:
            self._wrong = {one: seen for one, seen in self._wrong.items() if now - seen[0] < 60}
        if len(self._wrong) < ADDRESSES or address in self._wrong:
            self._wrong[address] = since, count + 1
        if count >= WRONG_A_MINUTE or self._waiting >= WAITING:
            return max(1, round(60 - (now - since)))
        log.warning("admin_key_wrong", address=address)
        self._waiting += 1
        try:
            await asyncio.sleep(ANSWERED_AFTER)
        finally:
            self._waiting -= 1
        return 0
