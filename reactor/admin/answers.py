"""What the admin API takes and answers: one struct a body, from which the OpenAPI description is made too.

Times are milliseconds since 1970 by Redis's clock; a room's settings are written as in the settings file.
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from reactor.fleet.reports import NodeReport
from reactor.presence.rows import Departure
from reactor.protocol.messages import Member


class _Answer(Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class ErrorAnswer(_Answer, frozen=True, kw_only=True):
    """Why a request was refused: a stable code for programs, and a sentence for people."""

    code: str
    message: str


class RoomSize(_Answer, frozen=True, kw_only=True):
    """A room with somebody in it."""

    room_id: str
    count: int


class RoomsPage(_Answer, frozen=True, kw_only=True):
    """Rooms in the order of their names; `cursor` leads to the next page, and is null on the last."""

    rooms: list[RoomSize]
    cursor: str | None


class RoomAnswer(_Answer, frozen=True, kw_only=True):
    """Where a room stands: nobody has to make one, so every room is there, with nobody in it at first."""

    room_id: str
    epoch: str
    version: int
    count: int


class MembersPage(_Answer, frozen=True, kw_only=True):
    """Members in the order in which they came; `cursor` leads to the next page, and is null on the last."""

    room_id: str
    epoch: str
    version: int
    count: int
    members: list[Member]
    cursor: str | None


class Kicked(_Answer, frozen=True, kw_only=True):
    """A member that was put out, with all connections."""

    room_id: str
    user_id: str


class MessageBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Something to say to everyone in a room: any JSON."""

    data: Any


class MessageSent(_Answer, frozen=True, kw_only=True):
    """A message on its way: when it was said, and how many servers had somebody in the room to tell."""

    room_id: str
    timestamp: int
    nodes: int


class RoomSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What differs in one room, as in the settings file: durations are seconds or text such as `10m`.

    Left out is what holds as everywhere. `max_members` 0 is no limit.
    """

    ttl: float | str | UnsetType = UNSET
    grace: float | str | UnsetType = UNSET
    away_grace: float | str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    max_members: int | UnsetType = UNSET


class RoomTerms(Struct, frozen=True, kw_only=True):
    """What holds in a room, from all that was set anywhere. Durations are seconds."""

    ttl: float
    grace: float
    away_grace: float
    message: str
    max_members: int


class SettingsAnswer(_Answer, frozen=True, kw_only=True):
    """What was set for a room here, and what holds in it, by this and by the settings of the server."""

    room_id: str
    settings: RoomSettings
    effective: RoomTerms


class DeparturesPage(_Answer, frozen=True, kw_only=True):
    """Departures, oldest first. `cursor` leads on: to those that are there, and to those to come."""

    departures: list[Departure]
    cursor: str


class NodeAnswer(_Answer, frozen=True, kw_only=True):
    """A server of the fleet; without a report where it told nothing of itself for 10 s."""

    node: str
    about: str
    report: NodeReport | None


class Overview(_Answer, frozen=True, kw_only=True):
    """All at a glance: the largest rooms, departures by reason since the beginning, the servers."""

    now: int
    rooms: int
    members: int
    largest: list[RoomSize]
    departures: dict[str, int]
    nodes: list[NodeAnswer]
