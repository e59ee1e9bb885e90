"""What a room's followers are told when its view had to be made anew, and what Redis has to be told then."""

from asyncio import gather
from collections.abc import Mapping
from typing import NamedTuple

from reactor.presence.departures import Departures, MembershipKey
from reactor.presence.store import Store
from reactor.protocol.messages import Departed, Member, RoomDiff
from reactor.protocol.reasons import DISCONNECTED
from reactor.protocol.room import RoomView, diff_between


def membership_key(member: Member) -> MembershipKey:
    """What tells this stay of the user from others."""
    return member.user_id, member.joined_at


def healing_diff(
    view: RoomView, before: Mapping[str, Member], told: tuple[str, int], reasons: Mapping[MembershipKey, str]
) -> RoomDiff:
    """The diff that leads from what was handed on to the healed view."""
    epoch, version = told
    joined, updated, left = diff_between(before, view.members.values())
    # Of the end of this very joining: its user may have come and gone again since.
    ends = ((one, membership_key(before[one.user_id])) for one in left)
    left = [Departed(one.user_id, reasons.get(end, one.reason)) for one, end in ends]
    if view.epoch != epoch:
        # Another epoch is told as a fresh room, whole: it replaces whatever anybody had.
        joined, updated, version = list(view.members.values()), [], 0
    count = len(view.members)
    return RoomDiff(view.room_id, view.epoch, version, view.version, count, joined, updated, left)


class Look(NamedTuple):
    """What Redis holds of a room that has to be healed. Its members include those who are still to depart.

    gone: those of before whose stay is over. reasons: why, as far as it is on record.
    """

    now: int
    epoch: str
    version: int
    members: list[Member]
    gone: list[Member]
    reasons: Mapping[MembershipKey, str]


async def look(store: Store, departures: Departures, room_id: str, before: Mapping[str, Member]) -> Look:
    """Look at what Redis holds. Raises Unavailable."""
    listing = await store.members(room_id)
    at, members = listing.position, listing.members
    # Those who lapsed, but whose departure does not count yet: a diff of their own will tell it.
    listed = {member.user_id for member in members}
    missing = [member for member in before.values() if member.user_id not in listed]
    members += await store.still_members(room_id, missing) if missing else ()
    there = {membership_key(member) for member in members}
    gone = [member for member in before.values() if membership_key(member) not in there]
    reasons = await departures.reasons(room_id, map(membership_key, gone))
    return Look(at.now, at.epoch, at.version, members, gone, reasons)


def reasons_told_since(view: RoomView, found: Look, before: Mapping[str, Member]) -> dict[MembershipKey, str]:
    """Why those of before left whom the look still saw: the diffs after it, which wait for it, tell."""
    told: dict[MembershipKey, str] = {}
    for diff in view.deferred:
        if diff.epoch == found.epoch and diff.version > found.version:
            for left in diff.left:
                if (member := before.get(left.user_id)) is not None:
                    told.setdefault(membership_key(member), left.reason)
    return told


async def record_lost(store: Store, room_id: str, found: Look) -> dict[MembershipKey, str] | None:
    """See that the departures are on record of those who went with Redis's data.

    Why each is said to have gone there; None when one of them is back. Raises Unavailable.
    """
    reasons = [found.reasons.get(membership_key(one), DISCONNECTED) for one in found.gone]
    recorded = await gather(
        *(store.record_lost_member(room_id, one, why) for one, why in zip(found.gone, reasons, strict=True))
    )
    told = {
        membership_key(one): why for one, why in zip(found.gone, recorded, strict=True) if why is not None
    }
    return told if len(told) == len(found.gone) else None
