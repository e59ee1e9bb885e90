"""Heartbeats for all rooms of clients that have spent too much: collected, and carried out a little later.

A heartbeat is never refused, but one message may renew as many rooms as a connection has joined, which takes
the node half a millisecond. So those of a connection that has overdrawn its account are collected, and one
of them answers for all. It is a sixth of the TTL late at most, so no member expires that sends heartbeats as
often as it was asked to, three times in a TTL; and LATEST, so that no client takes its connection for lost.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from reactor.gateway.connection import Connection
from reactor.gateway.cost import CostLimiter
from reactor.membership.pending import MAX_ABSORBED
from reactor.membership.refusals import TOO_MANY_HEARTBEATS
from reactor.protocol import intents, messages, requests

LATEST: Final = 2.0
"""Seconds that a heartbeat may be late."""

_OF_TTL: Final = 1 / 6  # that it may be late


class _Collected:
    """The heartbeats of one connection that wait: their ids, and when they are carried out."""

    __slots__ = ("ids", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        self.ids: list[messages.RequestId | None] = []


class PacedHeartbeats:
    """The heartbeats of a node that wait for their client to pay.

    Args:
        costs: Says which client has spent too much, and for how long.
        carry_out: Called with a connection, the intent, and the ids of others that are answered with it.

    """

    def __init__(
        self,
        costs: CostLimiter,
        carry_out: Callable[[Connection, intents.Refresh, list[messages.RequestId | None]], None],
    ) -> None:
        self._costs, self._carry_out = costs, carry_out
        self._loop = asyncio.get_running_loop()
        self._collected: dict[Connection, _Collected] = {}

    def add(self, connection: Connection, intent: intents.Refresh) -> None:
        """Carry out a heartbeat for several rooms: at once, or a little later where the client must wait."""
        collected = self._collected.get(connection)
        if collected is None:
            wait = self._costs.delay(connection, self._loop.time())
            if not wait:
                self._carry_out(connection, intent, [])
                return
            ttl = min(one.attachment.terms.ttl for one in intent.memberships) / 1000
            timer = self._loop.call_later(min(wait, ttl * _OF_TTL, LATEST), self._end, connection)
            collected = self._collected[connection] = _Collected(timer)
        if len(collected.ids) <= MAX_ABSORBED:
            collected.ids.append(intent.id)
        else:
            connection.send(messages.ErrorMessage("too_many_pending", TOO_MANY_HEARTBEATS, intent.id))

    def forget(self, connection: Connection) -> None:
        """Note that a connection is closed."""
        collected = self._collected.pop(connection, None)
        if collected is not None:
            collected.timer.cancel()

    def _end(self, connection: Connection) -> None:
        first, *others = self._collected.pop(connection).ids
        # It may have left rooms meanwhile, or joined others.
        intent = connection.session.receive(requests.Heartbeat(None, first))
        if isinstance(intent, intents.Refresh):
            self._carry_out(connection, intent, others)
