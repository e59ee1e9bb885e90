"""A node's copy of the bans, by which logins and watches are judged.

A join is judged by Redis, in its own script. What no script goes with is judged here: a login, a watch, and a
question about a room cost no call, and are answered while Redis is away. A node reads all bans before it
admits clients, and again whenever its subscription was renewed or Redis lost data; what is made or lifted
meanwhile is published. What was published lately is kept, to be repeated after a failover that lost it.
"""

from collections.abc import AsyncIterator, Callable
from time import monotonic

import anyio
from msgspec.structs import replace

from reactor.errors import Unavailable
from reactor.presence.bans import Ban, published_ban

READ_INTERVAL = 600.0
"""Seconds until all are read again, which also removes those that have ended."""
READ_RETRY = 1.0
"""Seconds until the next attempt while Redis is away."""

REMEMBERED = 300.0
"""Seconds for which changes are remembered. A failover loses less than that; `lib/bans.lua` notes for longer
which bans were lifted."""

_Key = tuple[str, str | None]


class KnownBans:
    """The bans that a node knows. `serve` has to run.

    Args:
        read: Yields all bans in Redis. Raises Unavailable.
        now: Redis's time (ms).
        on_banned: Called with each ban that was not known, to act on what is open here.

    """

    def __init__(
        self,
        read: Callable[[], AsyncIterator[Ban]],
        *,
        now: Callable[[], int],
        on_banned: Callable[[Ban], None],
    ) -> None:
        self._read, self._now, self._on_banned = read, now, on_banned
        self._bans: dict[_Key, Ban] = {}
        # What was published while the bans are being read, which may be newer than what is read.
        self._published: dict[_Key, Ban] | None = None
        self._recent: dict[_Key, tuple[float, Ban]] = {}
        self._wakeup = anyio.Event()

    def __len__(self) -> int:
        """Return the number of bans, those included that ended since all were read."""
        return len(self._bans)

    def find(self, user_id: str, room_id: str | None = None) -> Ban | None:
        """Return the ban of a user everywhere, or else the one from the room; None where there is none."""
        now = self._now()
        for place in (None,) if room_id is None else (None, room_id):
            ban = self._bans.get((user_id, place))
            if ban is not None and ban.until > now:
                return ban
        return None

    def recent_changes(self) -> list[tuple[Ban, int]]:
        """Return the last change of each ban that was published lately, and how long ago that was (ms).

        One that was lifted has no end.
        """
        self._forget()
        now = monotonic()
        return [(ban, round((now - heard) * 1000)) for heard, ban in self._recent.values()]

    async def load(self) -> None:
        """Read all bans. Raises Unavailable."""
        self._published = {}
        try:
            found = {(ban.user_id, ban.room_id): _kept(ban) async for ban in self._read()}
        finally:
            published, self._published = self._published, None
        former, merged = self._bans, {**found, **published}
        self._bans = {key: ban for key, ban in merged.items() if ban.until}
        for key, ban in list(self._bans.items()):
            known = former.get(key)
            if (known is None or known.until != ban.until) and ban.until > self._now():
                self._on_banned(ban)

    def on_message(self, payload: bytes) -> None:
        """Note what was published: a ban, or the user and the room of one that was lifted."""
        ban = published_ban(payload)
        if ban is None:
            self.changed()
            return
        key = ban.user_id, ban.room_id
        self._forget()
        self._recent.pop(key, None)  # so that the oldest stay in front
        self._recent[key] = monotonic(), ban
        if self._published is not None:
            self._published[key] = _kept(ban)
        if ban.until:
            self._bans[key] = _kept(ban)
            if ban.until > self._now():  # it may have ended while this node was frozen
                self._on_banned(ban)
        else:
            self._bans.pop(key, None)

    def _forget(self) -> None:
        oldest = monotonic() - REMEMBERED
        while self._recent and next(iter(self._recent.values()))[0] < oldest:
            del self._recent[next(iter(self._recent))]

    def changed(self) -> None:
        """Note that publications may have been missed, or that Redis lost bans."""
        self._wakeup.set()

    async def serve(self) -> None:
        """Read the bans again when that is due, until cancelled."""
        while True:
            with anyio.move_on_after(READ_INTERVAL):
                await self._wakeup.wait()
            self._wakeup = anyio.Event()
            try:
                await self.load()
            except Unavailable:
                await anyio.sleep(READ_RETRY)
                self.changed()


def _kept(ban: Ban) -> Ban:
    """Return what a node needs of a ban."""
    return replace(ban, by="")
