"""Verifies the admin key, and slows down those who guess it."""

import asyncio
import hmac
from hashlib import sha256
from time import monotonic

import structlog

log = structlog.get_logger()

MAX_WRONG_PER_MINUTE = 10
"""Wrong keys of one address in a minute; more are answered with 429."""
WRONG_KEY_DELAY = 0.25
"""Seconds before a wrong key is answered."""
MAX_ADDRESSES = 1000
"""Addresses whose wrong keys are counted."""
MAX_DELAYED = 32
"""Requests with a wrong key that may wait for their answer at the same time."""


class KeyVerifier:
    """Compares keys in constant time; counts and delays wrong ones. The right key is always accepted."""

    def __init__(self, key: bytes) -> None:
        self._digest = sha256(key).digest()
        self._wrong: dict[str, tuple[float, int]] = {}
        self._delayed = 0

    def use_key(self, key: bytes) -> None:
        """Accept this key, and no other, from now on."""
        self._digest = sha256(key).digest()

    def matches(self, authorization: str, api_key: str) -> bool:
        """Whether the key is in `Authorization: Bearer KEY`, or else in `X-API-Key: KEY`."""
        scheme, _, credentials = authorization.partition(" ")
        given = credentials.strip() if scheme.lower() == "bearer" else api_key
        digest = sha256(given.encode("latin-1", "replace")).digest()
        return hmac.compare_digest(digest, self._digest)

    async def record_wrong_key(self, address: str) -> int:
        """Count a wrong key of an address, after a delay; seconds until it may try again, 0 for at once."""
        now = monotonic()
        since, count = self._wrong.get(address, (now, 0))
        if now - since >= 60:
            since, count = now, 0
        if len(self._wrong) >= MAX_ADDRESSES:
            self._wrong = {known: wrong for known, wrong in self._wrong.items() if now - wrong[0] < 60}
        if len(self._wrong) < MAX_ADDRESSES or address in self._wrong:
            self._wrong[address] = since, count + 1
        if count >= MAX_WRONG_PER_MINUTE or self._delayed >= MAX_DELAYED:
            return max(1, round(60 - (now - since)))
        log.warning("admin_key_wrong", address=address)
        self._delayed += 1
        try:
            await asyncio.sleep(WRONG_KEY_DELAY)
        finally:
            self._delayed -= 1
        return 0
