"""What a room's followers are told when its view had to be made anew, and what Redis has to be told then."""

from collections.abc import Mapping

import anyio

from reactor.errors import Unavailable
from reactor.presence.store import Listing, Store
from reactor.protocol.messages import Departed, Member, RoomDiff
from reactor.protocol.room import RoomView, diff_between

RETRY_AFTER = 0.2
"""Seconds between attempts while Redis does not answer."""


def healing_diff(
    view: RoomView, before: Mapping[str, Member], told: tuple[str, int],
    reasons: Mapping[tuple[str, int], str],
) -> RoomDiff:  # fmt: skip
    """The diff that leads from what was handed on to the healed view."""
    epoch, version = told
    joined, updated, left = diff_between(before, view.members.values())
    # Of the end of this very joining: its user may have come and gone again since.
    ends = ((one, (one.user_id, before[one.user_id].joined_at)) for one in left)
    left = [Departed(one.user_id, reasons.get(end, one.reason)) for one, end in ends]
    if view.epoch != epoch:
        # Another epoch is told as a fresh room, whole: it replaces whatever anybody had.
        joined, updated, version = list(view.members.values()), [], 0
    count = len(view.members)
    return RoomDiff(view.room_id, view.epoch, version, view.version, count, joined, updated, left)


async def still_to_depart(
    store: Store, room_id: str, before: Mapping[str, Member], listing: Listing
) -> list[Member]:
    """Those who lapsed, but whose departure does not count yet: a diff of their own will tell it."""
    missing = list(before.keys() - {member.user_id for member in listing.members})
    found = await store.unclaimed(room_id, missing) if missing else ()
    return [before[user_id] for user_id in found]


async def record_lost(store: Store, room_id: str, member: Member, reason: str) -> None:
    """See that the departure is on record of one who went with Redis's data, however long it takes."""
    while True:
        try:
            await store.record_lost(room_id, member, reason)
        except Unavailable:
            await anyio.sleep(RETRY_AFTER)
        else:
            return
