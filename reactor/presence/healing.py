"""What a room's followers are told when its view had to be made anew, and what Redis has to be told then."""

from asyncio import gather
from collections.abc import Iterable, Mapping

from reactor.presence.departures import Joining
from reactor.presence.store import Listing, Store
from reactor.protocol.closing import LeaveReason
from reactor.protocol.messages import Departed, Member, RoomDiff
from reactor.protocol.room import RoomView, diff_between


def joining_of(member: Member) -> Joining:
    """What tells this stay of the user from others."""
    return member.user_id, member.joined_at


def healing_diff(
    view: RoomView, before: Mapping[str, Member], told: tuple[str, int], reasons: Mapping[Joining, str]
) -> RoomDiff:
    """The diff that leads from what was handed on to the healed view."""
    epoch, version = told
    joined, updated, left = diff_between(before, view.members.values())
    # Of the end of this very joining: its user may have come and gone again since.
    ends = ((one, joining_of(before[one.user_id])) for one in left)
    left = [Departed(one.user_id, reasons.get(end, one.reason)) for one, end in ends]
    if view.epoch != epoch:
        # Another epoch is told as a fresh room, whole: it replaces whatever anybody had.
        joined, updated, version = list(view.members.values()), [], 0
    count = len(view.members)
    return RoomDiff(view.room_id, view.epoch, version, view.version, count, joined, updated, left)


async def still_to_depart(
    store: Store, room_id: str, before: Mapping[str, Member], listing: Listing
) -> list[Member]:
    """Those who lapsed, but whose departure does not count yet: a diff of their own will tell it.

    Raises Unavailable.
    """
    missing = list(before.keys() - {member.user_id for member in listing.members})
    found = await store.unclaimed(room_id, missing) if missing else ()
    return [before[user_id] for user_id in found]


def ended(before: Mapping[str, Member], members: Iterable[Member]) -> list[Member]:
    """Those of before whose stay is none of these members'."""
    there = {joining_of(member) for member in members}
    return [member for member in before.values() if joining_of(member) not in there]


async def record_lost(
    store: Store, room_id: str, members: Iterable[Member], reasons: Mapping[Joining, str]
) -> dict[Joining, str] | None:
    """See that the departures are on record of those who went with Redis's data.

    Why each is said to have gone there; None when one of them is back. Raises Unavailable.
    """
    members = list(members)
    disconnected = LeaveReason.DISCONNECTED.value
    recorded = await gather(
        *(store.record_lost(room_id, one, reasons.get(joining_of(one), disconnected)) for one in members)
    )
    found = {joining_of(one): reason for one, reason in zip(members, recorded, strict=True) if reason}
    return found if len(found) == len(members) else None
