"""The subscription over which a program that has only Redis keeps up to date what it watches."""

from typing import Protocol

import anyio

from reactor.backend.interface import Backend, ChannelCallbacks
from reactor.tasks import Spawner

FIRST_CONNECTION = 3.0
"""Seconds that the first watch waits for a connection; later ones fail soon while there is none."""


class Feed(Protocol):
    """What keeps up to date what is watched, by what is published."""

    def on_message(self, channel: bytes, payload: bytes) -> None:
        """Apply a publication."""

    def resync(self, channels: frozenset[str] | None = None) -> None:
        """Read again, since publications may have been missed: on these channels, or on any."""


class WatchSubscription:
    """A subscription that begins with the first watch, and reconnects by itself.

    Set `feed` before `begin`. channels: on which the feed subscribes.
    """

    feed: Feed

    def __init__(self, backend: Backend, tasks: Spawner) -> None:
        self._tasks = tasks
        self._serving = False
        self.channels = backend.channels(
            ChannelCallbacks(self._on_message, self._on_gap, self._on_disconnect, self._on_moved)
        )

    async def begin(self) -> None:
        """Serve the subscription, if it is not served yet; wait a while for its connection."""
        if not self._serving:
            self._serving = True
            self._tasks.start_soon(self.channels.serve)
            with anyio.move_on_after(FIRST_CONNECTION):
                await self.channels.subscribed()

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        self.feed.on_message(channel, payload)

    def _on_gap(self, first: bool) -> None:
        if not first:
            self.feed.resync()

    def _on_disconnect(self, reason: str) -> None:
        """Do nothing: the subscription reconnects by itself, and reports a gap when it has."""

    def _on_moved(self, channels: frozenset[str]) -> None:
        self.feed.resync(channels)
