"""Sends lists of members to the clients that asked for them, at the cost of each.

Who is sent a list pays for its bytes, and for the time that the node takes to encode and to compress it. What
takes long is encoded before the list is sent, a little in each turn of the event loop, while its receiver can
pay for it.
"""

from collections.abc import Callable
from time import thread_time
from typing import Any

from reactor.errors import Unavailable
from reactor.gateway.connection import Connection
from reactor.gateway.cost import CostLimiter, change_price, list_price, time_price
from reactor.gateway.snapshots import Snapshots, is_part
from reactor.presence.recent_diffs import Merged
from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import RoomView


class ListPayer:
    """A connection as who pays for lists: those that the node reads for it, and those that it is sent."""

    __slots__ = ("_clock", "_connection", "_costs")

    def __init__(self, connection: Connection, costs: CostLimiter, clock: Callable[[], float]) -> None:
        self._connection, self._costs, self._clock = connection, costs, clock

    def charge(self, members: int, size: int) -> None:
        """Charge for the first list of a room; see `room_feed.Payer`."""
        self._costs.charge(self._connection, list_price(members, size), self._clock())

    def wait(self) -> float:
        """Return for how many seconds nothing more is to be done for it. Raises Unavailable."""
        if self._connection.session.closed:
            raise Unavailable("the connection is closed")  # nothing is done for it any more
        return self._costs.shared_delay(self._connection, self._clock())

    def pay(self, seconds: float) -> float:
        """Charge for seconds of the node's time; return what `wait` does."""
        self._costs.charge(self._connection, time_price(seconds), self._clock())
        return self.wait()


class PaidLists:
    """Lists for connections that pay. clock: seconds, as the event loop counts them.

    Each method that sends returns the units of cost that its caller has to charge.
    """

    def __init__(self, snapshots: Snapshots, costs: CostLimiter, clock: Callable[[], float]) -> None:
        self._snapshots, self._costs, self._clock = snapshots, costs, clock

    def payer(self, connection: Connection) -> ListPayer:
        """Return a connection as who pays for what is read for it."""
        return ListPayer(connection, self._costs, self._clock)

    async def prepare(self, connection: Connection, view: RoomView) -> None:
        """Encode a view's list for a connection, and charge it. Raises Unavailable when that is closed."""
        await self._snapshots.prepare(view, connection.codec, self.payer(connection).pay)

    async def prepare_members(self, connection: Connection, members: list[Member]) -> None:
        """Do the same for members of a room that the node does not follow.

        Raises Unavailable where too many such lists wait, too.
        """
        pay, address = self.payer(connection).pay, connection.address
        await self._snapshots.prepare_members(members, connection.codec, pay, address)

    def may_send_diff(self, connection: Connection, view: RoomView, diff: RoomDiff) -> bool:
        """Return whether a diff may be sent in place of a view's list: not if it takes long to encode."""
        is_slow = self._snapshots.is_slow(view.members, connection.codec)
        return not is_slow or is_part((*diff.joined, *diff.updated))

    def is_prepared(self, connection: Connection, view: RoomView) -> bool:
        """Return whether a view's list can be sent at once."""
        return self._snapshots.is_prepared(view, connection.codec)

    def send(self, connection: Connection, message: Any, view: RoomView, *, whole: bool = True) -> float:
        """Send a message with the members of a view, if `whole`; see `Snapshots.send`."""
        began = _begin(connection)
        size = self._snapshots.send(connection, message, view, whole=whole)
        return _price(size, began)

    def send_members(self, connection: Connection, message: Any, members: list[Member]) -> float:
        """Send a message with the members of a room that the node does not follow."""
        began = _begin(connection)
        size = self._snapshots.send_members(connection, message, members)
        return _price(size, began)

    def send_diffs(self, connection: Connection, message: Any, since: Merged) -> float:
        """Send a message with what has changed since a client's list."""
        began = _begin(connection)
        size = self._snapshots.send_diffs(connection, message, since.encoded(connection.codec))
        return _price(size, began)


def _begin(connection: Connection) -> float | None:
    """Return the time before a list is sent; None for JSON, which takes next to none beside its bytes."""
    return thread_time() if connection.codec.binary or connection.compressed else None


def _price(size: int, began: float | None) -> float:
    """Return what it cost to send a message of that size, and the time since `began`."""
    return change_price(size, 1) + (time_price(thread_time() - began) if began is not None else 0.0)
