"""Compares this node's connections with what Redis stores about them, and restores what is missing there.

What it is for. Indexes and members can vanish without a departure: Redis evicted them, or another program
deleted or overwrote them. The sweep finds members whose presence key is gone; what has no trace in Redis
except in this node's memory is found here.

What triggers it. Each `interval`, as the sweep; and at once when a script found an own key of a wrong type,
which it renamed aside, and published that.

What it guarantees. After a round on every node, each member with a connection is in every index of its shard.
A connection that Redis does not know is registered again, unless its member's departure is on record.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from time import monotonic

import anyio

from reactor.errors import Unavailable
from reactor.log import RateLimitedLog
from reactor.membership.reconciler import Reconciler
from reactor.presence.attachment import Attachment, AttachmentState
from reactor.presence.keys import parse_suffix
from reactor.presence.store import Store, each

PAGE = 200
"""Connections in one call, which takes Redis about a millisecond."""
TRIGGER_DELAY = 0.1
"""Seconds from the trigger to the round, so that several triggers lead to one round."""
RETRY_DELAY = 1.0
"""Seconds until a round that failed is repeated; they double up to `MAX_RETRY_DELAY`."""
MAX_RETRY_DELAY = 30.0
MAX_KEY_SHOWN = 200


class RosterAudit:
    """Audits the roster of one node. `serve` has to run.

    interval: seconds between rounds, 0 for none but those triggered. node: returns this node's name.
    healthy: whether what Redis holds can be relied on; during a recovery all members are registered anyway.
    on_loss: called when keys may have been lost, of which a round restores those of rooms alone.
    `damaged` counts the keys that were renamed aside, by kind; `restored` the connections registered again.
    """

    def __init__(
        self,
        store: Store,
        reconciler: Reconciler,
        *,
        interval: float,
        node: Callable[[], str],
        healthy: Callable[[], bool],
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._reconciler = store, reconciler
        self._on_loss = on_loss
        self._interval, self._node, self._healthy = interval, node, healthy
        self._triggered = asyncio.Event()
        self._log = RateLimitedLog()
        self.damaged: Counter[str] = Counter()
        self.restored = self.rounds = 0

    def trigger(self) -> None:
        """Start a round as soon as possible, since keys may have been lost."""
        self._triggered.set()
        self._on_loss()

    def on_damaged_key(self, key: str) -> None:
        """Take in that a script renamed a key aside, or deleted a field of it; restore what was in it."""
        self.damaged[key.partition(":")[0]] += 1
        self._log.warning(
            "key_damaged", monotonic(), key=key[:MAX_KEY_SHOWN], fix="find the program that writes it"
        )
        self.trigger()

    def on_missing_member(self, suffix: str) -> None:
        """Take in that a member was found gone, perhaps evicted; register it again if it is here."""
        self._reconciler.restore_evicted(parse_suffix(suffix))

    async def serve(self) -> None:
        """Audit until cancelled."""
        delay = RETRY_DELAY
        while True:
            with anyio.move_on_after(self._interval or None):
                await self._triggered.wait()
                await anyio.sleep(TRIGGER_DELAY)
            self._triggered.clear()
            try:
                await self.audit()
                delay = RETRY_DELAY
            except Unavailable:
                self._triggered.set()
                await anyio.sleep(delay)
                delay = min(2 * delay, MAX_RETRY_DELAY)

    async def audit(self) -> None:
        """Do one whole round. Raises Unavailable when some shard did not answer; the others are done."""
        by_shard: dict[int, list[Attachment]] = defaultdict(list)
        for attachment in self._reconciler.present_attachments():
            by_shard[attachment.shard].append(attachment)
        await each(by_shard.items(), lambda item: self._audit_shard(*item))
        self.rounds += 1

    async def _audit_shard(self, shard: int, attachments: list[Attachment]) -> None:
        node = self._node()
        own = [one for one in attachments if one.connection.startswith(f"{node}.")]
        for start in range(0, len(own), PAGE):
            page = own[start : start + PAGE]
            if not self._healthy():
                return
            unknown = await self._store.audit_connections(
                shard, node, [(one.suffix, one.connection) for one in page]
            )
            for place in unknown:
                if self._healthy() and page[place].state is AttachmentState.LIVE:
                    self.restored += 1
                    self._reconciler.reregister(page[place])
