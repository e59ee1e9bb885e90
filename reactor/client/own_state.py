"""The client's own member in one room: what the server has confirmed, and the changes that it has not. PURE.

The two are kept apart, so that a change that was refused leaves no trace, and a return after a lost
connection neither repeats it nor reverts what another device of the user has changed meanwhile. The name and
the data of a return are the confirmed ones, for the case that Redis has lost them; the pending changes are
sent after it.

Changes are sent in the order in which they were made, one request at a time. Those that wait meanwhile are
sent as one, since only the last name and the last data count; if that request is refused, each of them is
sent by itself, so that each caller learns the outcome of its own.
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from reactor.errors import ReactorError
from reactor.protocol.merge_patch import apply_patch, join_patches
from reactor.protocol.messages import Member
from reactor.protocol.requests import Away, Back, Request, Update


class OwnChange(Struct, frozen=True, kw_only=True):
    """What a call changes of the member; what is unset stays."""

    username: str | UnsetType = UNSET
    data: Any = UNSET
    away: bool | UnsetType = UNSET
    patch: dict[str, Any] | UnsetType = UNSET

    def followed_by(self, later: "OwnChange") -> "OwnChange | None":
        """Return one change with the effect of both, or None where it takes two requests."""
        if (self.away is UNSET) is not (later.away is UNSET):
            return None
        data, patch = later.data, later.patch
        if patch is UNSET:
            if data is UNSET:
                data, patch = self.data, self.patch
        elif self.data is not UNSET:
            data, patch = apply_patch(self.data, patch), UNSET
        elif isinstance(self.patch, dict):
            joined = join_patches(self.patch, patch)
            if joined is None:
                return None
            patch = joined
        return OwnChange(
            username=self.username if later.username is UNSET else later.username,
            data=data,
            away=later.away,
            patch=patch,
        )


class PendingChange:
    """A change without a reply.

    Attributes:
        change: The change.
        awaited: Whether a caller still waits for the outcome.
        under_way: Whether a request with it was sent.
        settled: Whether it was confirmed or refused; `error` says why it was refused.

    """

    __slots__ = ("awaited", "change", "error", "settled", "under_way")

    def __init__(self, change: OwnChange) -> None:
        self.change = change
        self.awaited = True
        self.under_way = False
        self.settled = False
        self.error: ReactorError | None = None

    @property
    def given_up(self) -> bool:
        """Whether no caller waits, and no request with it was sent."""
        return not (self.awaited or self.under_way)


class OwnState:
    """The own member's name, data and mark as away; `confirmed` is what the server is known to have."""

    def __init__(self) -> None:
        self.confirmed = OwnChange()
        self._pending: list[PendingChange] = []
        self._singly = 0  # the first pending changes that are sent each by itself

    # What the server has.

    def confirm(self, change: OwnChange) -> None:
        """Note what the server has accepted."""
        confirmed = self.confirmed
        data = confirmed.data if change.data is UNSET else change.data
        if change.patch is not UNSET:
            data = apply_patch(data, change.patch)
        self.confirmed = OwnChange(
            username=confirmed.username if change.username is UNSET else change.username,
            data=data,
            away=confirmed.away if change.away is UNSET else change.away,
        )

    def reported(self, member: Member) -> None:
        """Note the member as the server lists it: another device of the user may have changed it."""
        self.confirmed = OwnChange(username=member.username, data=member.data, away=self.confirmed.away)

    @property
    def away(self) -> bool:
        """Whether the application wants the member to be away."""
        for one in reversed(self._pending):
            if one.change.away is not UNSET:
                return one.change.away
        return self.confirmed.away is True

    # Changes.

    def add(self, change: OwnChange) -> PendingChange:
        """Note a change that is to be sent."""
        while self._pending and self._pending[-1].given_up:
            # While there is no connection, changes whose callers no longer wait do not pile up.
            both = self._pending[-1].change.followed_by(change)
            if both is None:
                break
            change = both
            self._pending.pop()
        pending = PendingChange(change)
        self._pending.append(pending)
        return pending

    def next_batch(self) -> tuple[list[PendingChange], OwnChange]:
        """Return the changes to send next, if any is pending, and one change with the effect of all."""
        for one in self._pending:
            one.under_way = False
        batch: list[PendingChange] = []
        change = OwnChange()
        for one in self._pending:
            both = one.change if not batch else change.followed_by(one.change)
            if both is None or (batch and self._singly):
                break
            one.under_way = True
            batch.append(one)
            change = both
        return batch, change

    def settle(self, batch: list[PendingChange], error: ReactorError | None = None) -> None:
        """Note the outcome of a batch: the error that refused it, or None where it was accepted."""
        if error is not None and len(batch) > 1:
            self._singly = len(batch)
            return
        for one in batch:
            one.settled, one.error = True, error
            self._pending.remove(one)
            self._singly = max(0, self._singly - 1)


def request_for(room_id: str, change: OwnChange) -> Request:
    """Return the request that makes this change."""
    if change.away is not UNSET:
        return Away(room_id) if change.away else Back(room_id)
    username = None if change.username is UNSET else change.username
    return Update(room_id, username, change.data, patch=change.patch)
