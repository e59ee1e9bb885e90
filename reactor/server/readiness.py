"""Whether a node serves clients well, what is wrong if not, and since when Redis is away.

`/readyz`, the reports in the registry and the handshake say what stands here; `Recovery` hears of an outage.
"""

from collections.abc import Callable

import structlog

from reactor.gateway.server import Gateway
from reactor.server.eviction_watch import EvictionWatch
from reactor.tasks import Spawner

log = structlog.get_logger()


class Readiness:
    """What keeps a node from admitting clients: its start, an operator's drain, an outage of Redis.

    unsubscribed: a sentence that says why diffs do not arrive; "" where they do. recovering: whether state is
    made right after an outage or a loss of data, for which joins wait. full: whether Redis refuses joins for
    want of memory. expiry_warning: a sentence that says why expired events do not arrive, or are not known
    to; "" where they arrive.
    on_outage(healthy, reason): called as one begins or ends.
    """

    def __init__(
        self,
        gateway: Gateway,
        evictions: EvictionWatch,
        tasks: Spawner,
        *,
        drain_seconds: float,
        unsubscribed: Callable[[], str],
        recovering: Callable[[], bool],
        full: Callable[[], bool],
        expiry_warning: Callable[[], str],
        on_outage: Callable[[bool, str], None],
    ) -> None:
        self._gateway, self._evictions, self._tasks = gateway, evictions, tasks
        self._drain_seconds = drain_seconds
        self._unsubscribed, self._expiry_warning = unsubscribed, expiry_warning
        self._recovering, self._full = recovering, full
        self._on_outage = on_outage
        self._outages: dict[str, str] = {}  # what is wrong with Redis, by what noticed it
        self._awaiting: str | None = "waiting for Redis: it has not answered yet"
        self._draining = False

    def status(self) -> tuple[bool, str]:
        """Return whether clients are served well now, and a sentence that says what is wrong if not."""
        if self._awaiting is not None:
            return False, self._awaiting
        if self._draining:
            return False, "draining: an operator has asked for it"
        if self._outages:
            return False, self._outage
        if unsubscribed := self._unsubscribed():
            return False, unsubscribed
        if self._recovering():
            return False, "recovering: Redis was away or lost data, and members are registered again"
        if self._full():
            return (
                False,
                "Redis is full, so no client can join: raise maxmemory, or remove what is not needed",
            )
        if self._evictions.state.evicts:
            policy = self._evictions.state.policy
            return True, f"ok; Redis may evict members (maxmemory-policy {policy}): set it to noeviction"
        warning = self._expiry_warning()
        return True, f"ok; {warning}" if warning else "ok"

    # The start.

    @property
    def starting(self) -> bool:
        """Whether the node has not served clients yet."""
        return self._awaiting is not None

    def note_awaited(self, sentence: str) -> bool:
        """Note what the start waits for; return whether that is news."""
        news, self._awaiting = sentence != self._awaiting, sentence
        return news

    def note_started(self) -> None:
        """Note that clients are served from now on."""
        self._awaiting = None

    # An operator's drain.

    @property
    def draining(self) -> bool:
        """Whether an operator has asked this node to send its clients away, until `resume`."""
        return self._draining

    def drain(self) -> None:
        """Close all connections over `drain_seconds`, so that clients go elsewhere, and admit no more."""
        if not self._draining:
            log.info("node_draining", connections=len(self._gateway.connections))
            self._draining = True
            self._tasks.start_soon(self._gateway.drain, self._drain_seconds)

    def resume(self) -> None:
        """Admit clients again."""
        if self._draining:
            log.info("node_resumed")
            self._draining = False
            self._gateway.admit()

    # Outages.

    @property
    def _outage(self) -> str:
        """The sentence about the outage that says most; "" where there is none."""
        found = (self._outages.get(source, "") for source in ("rights", "commands", "subscription"))
        return next(filter(None, found), "")

    def note_outage(self, source: str, reason: str) -> None:
        """Take in what is wrong with Redis now ("" for nothing); the outage ends when nothing is.

        source: what noticed it: "commands", which fail, "rights", which are missing, or "subscription".
        """
        former = self._outage
        if reason:
            self._outages[source] = reason
        else:
            self._outages.pop(source, None)
        if bool(self._outage) != bool(former):
            self._on_outage(not self._outages, reason)
        elif self._outage != former:
            log.warning("redis_away", reason=self._outage)
