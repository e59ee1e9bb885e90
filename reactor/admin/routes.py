"""The operations of the admin API; both the app and its OpenAPI description are generated from this table."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request

from reactor.admin.handlers import DEFAULT_LIMIT, MAX_LIMIT, AdminHandlers
from reactor.admin.schemas import (
    DeparturesPage,
    Kicked,
    MembersPage,
    MessageBody,
    MessageSent,
    Overview,
    RoomAnswer,
    RoomSettings,
    RoomsPage,
    SettingsAnswer,
)
from reactor.protocol.messages import Member

RequestHandler = Callable[[Request], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query."""

    name: str
    about: str
    type: Literal["string", "integer"] = "string"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path: its parameters, its handler, and the body of a successful response."""

    method: str
    path: str
    handler: RequestHandler
    about: str
    response: Any
    query: tuple[Query, ...] = ()
    body: Any = None
    errors: tuple[int, ...] = ()


LIMIT = Query(
    "limit", f"the maximum number of items, up to {MAX_LIMIT}; {DEFAULT_LIMIT} by default", "integer"
)
CURSOR = Query("cursor", "the cursor of the previous page")


def operations(api: AdminHandlers) -> list[Operation]:
    """All operations."""
    room = "/v1/rooms/{room}"
    member = room + "/members/{user}"
    settings = room + "/settings"
    page = LIMIT, CURSOR
    return [
        Operation("GET", "/v1/overview", api.overview, "The state of the whole deployment", Overview),
        Operation("GET", "/v1/rooms", api.rooms, "The rooms that have members", RoomsPage, page),
        Operation("GET", room, api.room, "The position and the count of a room", RoomAnswer),
        Operation("GET", room + "/count", api.room, "The number of members of a room", RoomAnswer),
        Operation("GET", room + "/members", api.members, "The members of a room", MembersPage, page),
        Operation("GET", member, api.member, "A member; 404 if the user is not there", Member, errors=(404,)),
        Operation(
            "DELETE", member, api.kick, "Remove a user from a room, on all connections", Kicked,
            (Query("message", "the message that the user receives"),), errors=(404,),
        ),
        Operation(
            "POST", room + "/messages", api.message, "Send a message to everyone in a room", MessageSent,
            body=MessageBody, errors=(408, 413),
        ),
        Operation("GET", settings, api.settings, "The settings of a room and their effect", SettingsAnswer),
        Operation(
            "PUT", settings, api.put_settings, "Set the settings of a room", SettingsAnswer,
            body=RoomSettings, errors=(408, 409, 413),
        ),
        Operation(
            "DELETE", settings, api.remove_settings, "Remove the settings of a room", SettingsAnswer,
            errors=(404,),
        ),
        Operation(
            "GET", "/v1/departures", api.departures, "Departures and their reasons", DeparturesPage,
            (
                Query("room", "only departures from this room"),
                Query("since", "milliseconds since 1970, or a duration before now such as 1h"),
                *page,
            ),
        ),
    ]  # fmt: skip
