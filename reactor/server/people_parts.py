"""Builds what a node keeps and follows of people: the index, and the users whom its clients watch."""

from collections.abc import Callable

import anyio

from reactor.backend.interface import Channels
from reactor.backend.target import Target
from reactor.presence.people import PeopleStore
from reactor.presence.people_feed import FollowedPerson, PeopleFeed
from reactor.presence.people_index import PeopleIndex
from reactor.presence.store import Store
from reactor.settings import Settings
from reactor.tasks import Spawner

REREAD_DELAY = 3.0
"""Seconds after a loss of data until the users who are followed are read again."""
MAX_INTERVAL = 60.0
"""Seconds between two readings of them where the sweep is off."""


class People:
    """The parts of a node that are about people.

    leading: whether this node does what one node does for all.
    """

    def __init__(
        self, settings: Settings, target: Target, store: PeopleStore, tasks: Spawner, *,
        leading: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._tasks = tasks
        self._interval = settings.sweep_interval
        self._rereading = False
        self._loss_noted = False
        self.store = store
        self.index = PeopleIndex(
            self.store, tasks, direct=target.kind != "cluster",
            keep=round(settings.last_seen_kept * 1000), most_seen=settings.last_seen_users, leading=leading,
            adding=settings.people,
        )  # fmt: skip
        self.feed: PeopleFeed | None = None

    def observe(self, store: Store) -> None:
        """Have the index take in what calls of this store change, or the calls do so themselves."""
        store.on_departed, store.on_kept = self.index.departed, self.index.verify
        store.last_seen_kept = self.index.keep if self.index.direct else None

    def follow(self, channels: Channels, on_changed: Callable[[FollowedPerson], None]) -> PeopleFeed:
        """Create the feed of the users whom clients watch."""
        self.feed = PeopleFeed(self.store, channels, self._tasks, on_changed=on_changed)
        return self.feed

    def resync(self, channels: frozenset[str] | None = None) -> None:
        """Read the users again who are followed, of some channels or all."""
        if self.feed is not None:
            self.feed.resync(channels)

    def on_data_lost(self) -> None:
        """Read the users again who are followed, once the nodes have registered again what Redis lost."""
        if self.feed is not None and not self._rereading:
            self._rereading = True
            self._tasks.start_soon(self._reread)

    def note_loss(self) -> None:
        """Have the next sweep of this node audit all users, since records may have been lost.

        Not at once: keys may be lost again and again, and an audit of all users costs as much as a sweep.
        """
        self._loss_noted = True

    async def serve(self) -> None:
        """Read the users again who are followed, in case something published was lost, until cancelled."""
        while self.feed is not None:
            await anyio.sleep(self._interval or MAX_INTERVAL)
            self.feed.resync()

    async def _reread(self) -> None:
        await anyio.sleep(REREAD_DELAY)
        self._rereading = False
        self.resync()

    async def audit(self, everyone: bool) -> None:
        """Audit all users, or the part that is due. Raises Unavailable."""
        if everyone or self._loss_noted:
            self._loss_noted = False
            await self.index.audit_all()
        else:
            await self.index.audit_part()
