"""What a room's followers are told when its view had to be made anew. PURE."""

from collections.abc import Mapping

from reactor.protocol.messages import Departed, Member, RoomDiff
from reactor.protocol.room import RoomView, diff_between


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
