"""Revocations: up to which time the tokens of a user were revoked.

They are one sorted set in Redis, and every node has a copy in memory, so that checking a token costs no call
and works while Redis is away. A node reads the set before it admits clients and whenever its subscription was
renewed; what is revoked meanwhile is published. The time of a user only ever moves forwards, so neither the
order nor the repetition of what a node learns matters. A node that knows more than Redis, whose data was
evicted, flushed or rolled back, writes it there again.
"""

from collections.abc import Callable
from typing import Any

import anyio

from reactor.backend.interface import Runner
from reactor.errors import ReactorError, SettingError, Unavailable
from reactor.presence.keys import Keyspace, escape, unescape
from reactor.protocol.messages import ErrorCode

MAX_REVOCATIONS = 100_000
"""Users whose tokens are revoked, at most."""
_MAX_TIME = 2**53  # the largest whole number that every score and JSON number holds

PAGE = 500
"""Revocations that one call reads or writes."""

READ_INTERVAL = 600.0
"""Seconds until all are read again, which also removes those that are over."""
READ_RETRY = 1.0
"""Seconds until the next attempt while Redis is away."""

SAME_SECOND = 5000
"""Milliseconds after a revocation for which a token of the same second is refused for the moment only.

`iat` is usually a whole second. Such a token may be older than the revocation, so it is not accepted; but it
may also be the fresh one of a client that was just closed, which is to ask for another.
"""

_EARLIEST = 100_000_000_000  # in 1973: a time before it was given in seconds


class TooManyRevocations(ReactorError):
    """There are MAX_REVOCATIONS revocations already."""


def checked_time(name: str, issued_before: Any) -> int | None:
    """Return the argument of this name: milliseconds since 1970, or None for now. Raises SettingError."""
    if issued_before is None:
        return None
    if isinstance(issued_before, bool) or not isinstance(issued_before, int) or issued_before < _EARLIEST:
        raise SettingError(f"{name} takes milliseconds since 1970, not {issued_before!r}.")
    return issued_before


class RevocationStore:
    """The revocations in Redis. Every call raises Unavailable when Redis does not answer."""

    def __init__(self, runner: Runner, keys: Keyspace) -> None:
        self._runner, self._prefix = runner, keys.fleet

    async def revoke(self, user_id: str, issued_before: int | None = None) -> int:
        """Revoke a user's tokens up to a time (ms; None for now, by Redis's clock) on every node.

        A time that is still to come counts as now. Returns the time that holds from now on: an earlier
        revocation may have been up to a later one. Raises TooManyRevocations.
        """
        time = "" if issued_before is None else issued_before
        status, number = await self._runner.run(
            "revoke", self._prefix, MAX_REVOCATIONS, escape(user_id), time
        )
        if status == b"full":
            raise TooManyRevocations(
                f"there are {MAX_REVOCATIONS} revocations, the most there may be: "
                "shorten revocation_kept to the longest life of a token"
            )
        return int(number)

    async def restore(self, revocations: dict[str, int]) -> None:
        """Write revocations that Redis lacks; beyond MAX_REVOCATIONS they are left out."""
        pairs = [(escape(user_id), time) for user_id, time in revocations.items()]
        for start in range(0, max(1, len(pairs)), PAGE):
            flat = [part for pair in pairs[start : start + PAGE] for part in pair]
            await self._runner.run("revoke", self._prefix, MAX_REVOCATIONS, *flat)

    async def read(self, kept: int) -> dict[str, int]:
        """Return all revocations: time (ms) by user id. kept: ms after which one is removed."""
        found: dict[str, int] = {}
        skip = 0
        while True:
            flat = await self._runner.run("list_revocations", self._prefix, kept, skip, PAGE)
            for i in range(0, len(flat), 2):
                user_id = unescape(flat[i].decode(errors="replace"))
                found[user_id] = max(_time(flat[i + 1]), found.get(user_id, 0))
            if len(flat) < 2 * PAGE:
                return found
            skip += PAGE


class Revocations:
    """A node's copy of the revocations. `serve` has to run.

    Args:
        store: Where they are kept.
        kept: Seconds for which a revocation holds (the setting `revocation_kept`).
        now: Redis's time (ms).
        on_revoked: Called after revocations were added, to close the connections that they concern.

    """

    def __init__(
        self, store: RevocationStore, *, kept: float, now: Callable[[], int], on_revoked: Callable[[], None]
    ) -> None:
        self._store, self._kept, self._now = store, round(kept * 1000), now
        self._on_revoked = on_revoked
        self._times: dict[str, int] = {}
        self._added = self._stale = False
        self._wakeup = anyio.Event()

    def __len__(self) -> int:
        return len(self._times)

    def objection(self, user_id: str, issued_at: float | None) -> ErrorCode | None:
        """Return the code with which a token is refused, or None where it was not revoked.

        issued_at: its claim `iat` (seconds since 1970); None where it has none, which counts as revoked.
        `unavailable` is for a token that may be one of after the revocation, see SAME_SECOND.
        """
        revoked_at = self._times.get(user_id)
        if revoked_at is None or revoked_at <= self._now() - self._kept:
            return None
        if issued_at is None or issued_at * 1000 < revoked_at // 1000 * 1000:
            return "unauthorized"
        if issued_at * 1000 > revoked_at:
            return None
        return "unavailable" if self._now() - revoked_at < SAME_SECOND else "unauthorized"

    async def load(self) -> None:
        """Read all revocations. Raises Unavailable."""
        found = await self._store.read(self._kept)
        over = self._now() - self._kept
        self._times = {user_id: time for user_id, time in self._times.items() if time > over}
        missing = {user_id: time for user_id, time in self._times.items() if time > found.get(user_id, 0)}
        self._add(found)
        if missing:
            await self._store.restore(missing)

    def on_message(self, payload: str) -> None:
        """Note what was published: `TIME USER`, once or several times."""
        words = payload.split(" ")
        self._add(
            {
                unescape(user): int(time)
                for time, user in zip(words[::2], words[1::2], strict=False)
                if time.isdecimal() and len(time) < 16
            }
        )

    def changed(self) -> None:
        """Note that publications may have been missed."""
        self._stale = True
        self._wakeup.set()

    async def serve(self) -> None:
        """Act on revocations until cancelled."""
        while True:
            with anyio.move_on_after(READ_INTERVAL) as scope:
                await self._wakeup.wait()
            self._wakeup = anyio.Event()
            stale, self._stale = self._stale or scope.cancelled_caught, False
            if stale:
                try:
                    await self.load()
                except Unavailable:
                    await anyio.sleep(READ_RETRY)
                    self.changed()
            if self._added:
                # One pass over the connections, however many revocations came since the last one.
                self._added = False
                self._on_revoked()

    def _add(self, revocations: dict[str, int]) -> None:
        for user_id, time in revocations.items():
            if time > self._times.get(user_id, 0) and (
                user_id in self._times or len(self._times) < MAX_REVOCATIONS
            ):
                self._times[user_id] = time
                self._added = True
        if self._added:
            self._wakeup.set()


def _time(score: bytes) -> int:
    """The time (ms) of a score, which another program may have made infinite."""
    return round(min(max(float(score), 0.0), float(_MAX_TIME)))
