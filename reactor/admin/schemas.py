"""The bodies of the admin API's requests and responses; the OpenAPI description is generated from them.

Times are milliseconds since 1970 by Redis's clock; a room's settings are written as in the settings file.
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from reactor.fleet.reports import NodeReport
from reactor.presence.rows import Departure
from reactor.protocol.messages import Member


class _Response(Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class ErrorAnswer(_Response, frozen=True, kw_only=True):
    """Why a request was rejected: a stable code for programs, and a sentence for people."""

    code: str
    message: str


class RoomSize(_Response, frozen=True, kw_only=True):
    """A room and the number of its members."""

    room_id: str
    count: int


class RoomsPage(_Response, frozen=True, kw_only=True):
    """Rooms in the order of their ids; `cursor` requests the next page, and is null on the last."""

    rooms: list[RoomSize]
    cursor: str | None


class RoomAnswer(_Response, frozen=True, kw_only=True):
    """The position and the count of a room. A room that has never had a member has count 0."""

    room_id: str
    epoch: str
    version: int
    count: int


class MembersPage(_Response, frozen=True, kw_only=True):
    """Members in the order in which they joined; `cursor` requests the next page, and is null on the last."""

    room_id: str
    epoch: str
    version: int
    count: int
    members: list[Member]
    cursor: str | None


class Kicked(_Response, frozen=True, kw_only=True):
    """A member that was removed, with all connections."""

    room_id: str
    user_id: str


class MessageBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A message to everyone in a room: any JSON."""

    data: Any


class MessageSent(_Response, frozen=True, kw_only=True):
    """A message that was published: when, and how many servers have connections in the room."""

    room_id: str
    timestamp: int
    nodes: int


class RoomSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one room, as in the settings file: durations are seconds or text such as `10m`.

    A setting that is left out has the server's value. `max_members` 0 means no limit.
    """

    ttl: float | str | UnsetType = UNSET
    grace: float | str | UnsetType = UNSET
    away_grace: float | str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    max_members: int | UnsetType = UNSET


class RoomTerms(Struct, frozen=True, kw_only=True):
    """The settings in effect in a room, whatever their source. Durations are seconds."""

    ttl: float
    grace: float
    away_grace: float
    message: str
    max_members: int


class SettingsAnswer(_Response, frozen=True, kw_only=True):
    """The settings of one room, and those in effect there, which include the settings of the server."""

    room_id: str
    settings: RoomSettings
    effective: RoomTerms


class DeparturesPage(_Response, frozen=True, kw_only=True):
    """Departures, oldest first. `cursor` requests the next ones; it is also valid for later departures."""

    departures: list[Departure]
    cursor: str


class NodeAnswer(_Response, frozen=True, kw_only=True):
    """A server of the fleet. `report` is null when the server has sent none for 10 s."""

    node: str
    about: str
    report: NodeReport | None


class Overview(_Response, frozen=True, kw_only=True):
    """The largest rooms, the number of departures by reason since the beginning, the servers."""

    now: int
    rooms: int
    members: int
    largest: list[RoomSize]
    departures: dict[str, int]
    nodes: list[NodeAnswer]
