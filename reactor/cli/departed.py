"""Shows departures: the list, the list that goes on, and the sums by reason."""

from collections import Counter

from reactor.cli import show
from reactor.log import printable
from reactor.presence.api import Departure, Presence

_COLUMNS = ["LEFT", "ROOM", "USER", "NAME", "REASON", "JOINED"]


async def list_departures(
    presence: Presence, room: str | None, since: int | None, *, follow: bool, json: bool
) -> None:
    """Write each departure, as it comes with `follow`; for people also the sums by reason."""
    found = presence.departures(room, since=since, follow=follow)
    if show.as_json(json):
        async for departure in found:
            show.json_line(departure)
    elif follow:
        async for departure in found:
            show.line("  ".join(_cells(departure)))
    else:
        listed = [departure async for departure in found]
        if listed:
            show.table(_COLUMNS, [_cells(departure) for departure in listed])
        show.line(show.sums(Counter(departure.reason for departure in listed)))


async def list_totals(presence: Presence, room: str | None, since: int | None, *, json: bool) -> None:
    """Write how many left for each reason: of all time, or counted from those that the arguments choose."""
    if room is None and since is None:
        counts = await presence.totals()
    else:
        counts = Counter([one.reason async for one in presence.departures(room, since=since)])
    if show.as_json(json):
        for reason, count in sorted(counts.items()):
            show.json_line({"reason": reason, "count": count})
    else:
        show.line(show.sums(counts))


def _cells(departure: Departure) -> list[str]:
    return [
        show.moment(departure.left_at),
        printable(departure.room_id),
        printable(departure.user_id),
        printable(departure.username),
        departure.reason,
        show.moment(departure.joined_at),
    ]
