"""The screen of `reactor watch` in a terminal: the members of a room, and below them the latest changes."""

from collections import deque

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reactor.cli import output
from reactor.client.status import Status
from reactor.log import printable
from reactor.protocol.events import RoomEvent
from reactor.protocol.messages import Member

_VERBS = {"join": "joined", "leave": "left", "update": "changed"}
_CHANGES = 8
"""Changes on the screen."""
_OTHER_LINES = 5
"""Lines of the screen that show neither a member nor a change."""


class RoomDisplay:
    """A room as rich renders it. `apply` takes its events."""

    def __init__(self, room: str) -> None:
        self._room = printable(room)
        self._members: dict[str, Member] = {}
        self._count: int | None = None
        self._status = ""
        self._changes: deque[str] = deque(maxlen=_CHANGES)

    def apply(self, event: RoomEvent) -> None:
        """Change the display by an event."""
        self._count = event.count
        if event.kind == "sync":
            self._members = {member.user_id: member for member in event.members}
            return
        member = event.member
        if event.kind == "leave":
            self._members.pop(member.user_id, None)
        else:
            self._members[member.user_id] = member
        reason = f" ({event.reason})" if event.reason else ""
        self._changes.append(
            f"{output.time_of_day()}  {printable(member.username)} {_VERBS[event.kind]}{reason}"
        )

    def set_status(self, status: Status) -> None:
        """Note the status of the connection to the server."""
        self._status = output.STATUS_TEXTS.get(status, "")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it, no higher than the screen."""
        count = "waiting for the server" if self._count is None else f"{self._count:,} here"
        yield Text(f"{self._room}: {count}", style="bold")
        if self._status:
            yield Text(self._status, style="bold red")
        rows = max((options.max_height or console.height) - len(self._changes) - _OTHER_LINES, 1)
        if self._members:
            yield self._table(rows)
        elif self._count:
            yield Text("too many members to list", style="dim")
        yield Text()
        for line in self._changes:
            yield Text(line, style="dim", no_wrap=True, overflow="ellipsis")

    def _table(self, rows: int) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("name", "user", "since", "state", "connections", "data"):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        members = sorted(self._members.values(), key=lambda member: (member.joined_at, member.user_id))
        for member in members[:rows]:
            cells = (
                member.username, member.user_id, output.time_of_day(member.joined_at),
                "away" if member.away else "here", str(member.connections), output.json_text(member.data),
            )  # fmt: skip
            table.add_row(*(Text(printable(cell)) for cell in cells))
        if (more := len(members) - rows) > 0:
            table.add_row(Text(f"and {more:,} more", style="dim"))
        return table


class LiveScreen:
    """A RoomDisplay in the terminal, rendered again after each event. A context manager."""

    def __init__(self, room: str) -> None:
        self._display = RoomDisplay(room)
        self._live = Live(self._display, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> "LiveScreen":
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: RoomEvent) -> None:
        """Change the display by an event, and render it."""
        self._display.apply(event)
        self._live.refresh()

    def show_status(self, status: Status) -> None:
        """Show when the server goes, and when it is back."""
        self._display.set_status(status)
        self._live.refresh()
