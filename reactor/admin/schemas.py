"""The bodies of the admin API's requests and responses; the OpenAPI description is generated from them.

Times are milliseconds since 1970 by Redis's clock; a room's settings are written as in the settings file.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from reactor.fleet.reports import NodeReport
from reactor.presence.bans import Ban
from reactor.presence.people import PersonInfo
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
    """Rooms; `cursor` requests the next page, and is null on the last.

    Up to 1,000 rooms, and those that were searched, come in the order of their ids; more come in no order,
    and a room may come twice.
    """

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


class UserDisconnected(_Response, frozen=True, kw_only=True):
    """A user whose connections are being removed from all rooms, and how many servers were asked."""

    user_id: str
    nodes: int


class TokensRevoked(_Response, frozen=True, kw_only=True):
    """A user whose tokens are revoked that were issued up to a time, in milliseconds since 1970."""

    user_id: str
    issued_before: int


class UsersBody(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Users to ask for."""

    user_ids: list[str | int]


class UsersAnswer(_Response, frozen=True, kw_only=True):
    """Users, in the order in which they were asked for."""

    users: list[PersonInfo]


class UserErased(_Response, frozen=True, kw_only=True):
    """A user whose last activity was forgotten, and whether it was on record."""

    user_id: str
    erased: bool


class NodeState(_Response, frozen=True, kw_only=True):
    """The server that answers: its name, what /readyz says, and what was set for it alone."""

    node: str
    ready: bool
    status: str
    connections: int
    draining: bool
    log_level: str


class LogLevel(Struct, frozen=True, forbid_unknown_fields=True):
    """The lowest level that a server logs."""

    level: Literal["debug", "info", "warning", "error"]


class MessageBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A message to everyone in a room: any JSON."""

    data: Any


class MessageSent(_Response, frozen=True, kw_only=True):
    """A message that was published: when, and how many servers have connections in the room."""

    room_id: str
    timestamp: int
    nodes: int


_BODY_NAMES = {"user_id": "userId", "room_id": "roomId", "for_": "for"}


class BanBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_BODY_NAMES):
    """A ban from a room, or without `roomId` from every room. `for`: seconds, or text such as `10m` or `30d`.

    `message` is for the user; `by`, who decided it, is kept for the list of bans.
    """

    user_id: str | int
    for_: float | str
    room_id: str | int | None = None
    message: str = ""
    by: str = ""


class BansPage(_Response, frozen=True, kw_only=True):
    """Bans that have not ended; `cursor` requests the next page, and is null on the last.

    First those from every room, then those of single rooms. `until` and `at` are milliseconds since 1970.
    """

    bans: list[Ban]
    cursor: str | None


class Unbanned(_Response, frozen=True, kw_only=True):
    """A ban that was lifted. `roomId` is null where it was one from every room."""

    user_id: str
    room_id: str | None


class RoomSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one room, as in the settings file: durations are seconds or text such as `10m`.

    A setting that is left out has the server's value. `max_members` 0 means no limit.
    """

    ttl: float | str | UnsetType = UNSET
    grace: float | str | UnsetType = UNSET
    away_grace: float | str | UnsetType = UNSET
    close_grace: float | str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    max_members: int | UnsetType = UNSET


class RoomTerms(Struct, frozen=True, kw_only=True):
    """The settings in effect in a room, whatever their source. Durations are seconds."""

    ttl: float
    grace: float
    away_grace: float
    close_grace: float
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
    """A server of the fleet. `report` is null when the server has sent none for 10 s; it sends one every 2 s.

    `report_age` is in milliseconds, by Redis's clock.
    """

    node: str
    about: str
    report: NodeReport | None
    report_age: int | None


class Overview(_Response, frozen=True, kw_only=True):
    """The largest rooms, the number of departures by reason since the beginning, the servers.

    Of the reasons, those that the server knows come first, in the order of `REASONS`.
    `now` and `as_of` are milliseconds since 1970: `rooms`, `members` and `largest` are as of the latter.
    """

    now: int
    as_of: int
    rooms: int
    members: int
    largest: list[RoomSize]
    departures: dict[str, int]
    nodes: list[NodeAnswer]
