"""How `reactor watch` tells a person what happens in a room."""

from reactor.cli import show
from reactor.log import printable
from reactor.protocol.events import RoomEvent
from reactor.protocol.messages import Member

_WORDS = {"join": "joined", "leave": "left", "update": "changed"}


def told(event: RoomEvent) -> None:
    """Print one line for an event; a whole list as one line of names."""
    if event.kind == "sync":
        names = ", ".join(map(_name, event.members)) or "nobody"
        show.line(f"{event.count} here: {names}")
        return
    who = _name(event.member) if event.member is not None else "somebody"
    why = f" ({event.reason})" if event.reason else ""
    show.line(f"{who} {_WORDS[event.kind]}{why}; {event.count} here")


def _name(member: Member) -> str:
    away = " (away)" if member.away else ""
    return printable(member.username) + away
