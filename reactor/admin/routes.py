"""The table of what the admin API serves: the app and its OpenAPI description are both made from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request

from reactor.admin import answers as say
from reactor.admin.api import MOST, USUAL, Api
from reactor.protocol.messages import Member

Handler = Callable[[Request], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Query:
    """A value of the query."""

    name: str
    about: str
    type: Literal["string", "integer"] = "string"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One request: what it takes, what does it, what it answers when all is well."""

    method: str
    path: str
    handler: Handler
    about: str
    answer: Any
    query: tuple[Query, ...] = ()
    body: Any = None
    refusals: tuple[int, ...] = ()


LIMIT = Query("limit", f"how many at most, from 1 to {MOST}; {USUAL} when left out", "integer")
CURSOR = Query("cursor", "where the page before ended, as its answer gave it")


def endpoints(api: Api) -> list[Endpoint]:
    """All of them."""
    room = "/v1/rooms/{room}"
    member = room + "/members/{user}"
    settings = room + "/settings"
    return [
        Endpoint("GET", "/v1/overview", api.overview, "All at a glance", say.Overview),
        Endpoint("GET", "/v1/rooms", api.rooms, "Rooms with anybody in them", say.RoomsPage, (LIMIT, CURSOR)),
        Endpoint("GET", room, api.room, "Where a room stands", say.RoomAnswer),
        Endpoint("GET", room + "/count", api.room, "How many are in a room", say.RoomAnswer),
        Endpoint("GET", room + "/members", api.members, "Who is in a room", say.MembersPage, (LIMIT, CURSOR)),
        Endpoint("GET", member, api.member, "Whether a user is in a room", Member, refusals=(404,)),
        Endpoint(
            "DELETE", member, api.kick, "Put a user out of a room, on all connections", say.Kicked,
            (Query("message", "what the user is told"),), refusals=(404,),
        ),
        Endpoint(
            "POST", room + "/messages", api.message, "Say something to everyone in a room", say.MessageSent,
            body=say.MessageBody, refusals=(408, 413),
        ),
        Endpoint("GET", settings, api.settings, "What was set for a room, and holds", say.SettingsAnswer),
        Endpoint(
            "PUT", settings, api.put_settings, "Set what differs in a room", say.SettingsAnswer,
            body=say.RoomSettings, refusals=(408, 409, 413),
        ),
        Endpoint(
            "DELETE", settings, api.remove_settings, "Take back what was set for a room", say.SettingsAnswer,
            refusals=(404,),
        ),
        Endpoint(
            "GET", "/v1/departures", api.departures, "Who left and why", say.DeparturesPage,
            (
                Query("room", "only of this room"),
                Query("since", "milliseconds since 1970, or a duration before now such as 1h"),
                LIMIT,
                CURSOR,
            ),
        ),
    ]  # fmt: skip
