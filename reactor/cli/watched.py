"""How `reactor watch` shows a person a room: who is there now, and below it what happened last."""

from collections import deque

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reactor.cli import show
from reactor.log import printable
from reactor.protocol.events import RoomEvent
from reactor.protocol.messages import Member

_WORDS = {"join": "joined", "leave": "left", "update": "changed"}
_LINES = 8
_FRAME = 4  # lines of the screen that are neither a member nor something that happened


class Board:
    """A room on the screen; `told` takes its events."""

    def __init__(self, room: str) -> None:
        self._room = printable(room)
        self._members: dict[str, Member] = {}
        self._count: int | None = None
        self._happened: deque[str] = deque(maxlen=_LINES)

    def told(self, event: RoomEvent) -> None:
        """Take an event."""
        self._count = event.count
        if event.kind == "sync":
            self._members = {member.user_id: member for member in event.members}
            return
        member = event.member
        if member is None:
            return
        if event.kind == "leave":
            self._members.pop(member.user_id, None)
        else:
            self._members[member.user_id] = member
        why = f" ({event.reason})" if event.reason else ""
        self._happened.append(f"{show.clock()}  {printable(member.username)} {_WORDS[event.kind]}{why}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it, no higher than the screen."""
        here = "waiting for the server" if self._count is None else f"{self._count:,} here"
        yield Text(f"{self._room}: {here}", style="bold")
        fits = max((options.max_height or console.height) - len(self._happened) - _FRAME, 1)
        if self._members:
            yield self._table(fits)
        elif self._count:
            yield Text("too many to be listed", style="dim")
        yield Text()
        for line in self._happened:
            yield Text(line, style="dim", no_wrap=True, overflow="ellipsis")

    def _table(self, fits: int) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("name", "user", "since", "state", "connections", "data"):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        for member in sorted(self._members.values(), key=lambda one: (one.joined_at, one.user_id))[:fits]:
            cells = (
                member.username, member.user_id, show.clock(member.joined_at),
                "away" if member.away else "here", str(member.connections), show.compact(member.data),
            )  # fmt: skip
            table.add_row(*(Text(printable(cell)) for cell in cells))
        if (more := len(self._members) - fits) > 0:
            table.add_row(Text(f"and {more:,} more", style="dim"))
        return table


class Screen:
    """The board where it is seen, drawn anew at each event. For a `with` block."""

    def __init__(self, room: str) -> None:
        self._board = Board(room)
        self._live = Live(self._board, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> "Screen":
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def told(self, event: RoomEvent) -> None:
        """Take an event and show it."""
        self._board.told(event)
        self._live.refresh()
