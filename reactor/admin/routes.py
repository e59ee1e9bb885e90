"""The operations of the admin API; both the app and its OpenAPI description are generated from this table."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request

from reactor.admin.handlers import DEFAULT_LIMIT, MAX_LIMIT, MAX_USERS, AdminHandlers
from reactor.admin.schemas import (
    BanBody,
    BansPage,
    DeparturesPage,
    Kicked,
    LogLevel,
    MembersPage,
    MessageBody,
    MessageSent,
    NodeState,
    Overview,
    RoomAnswer,
    RoomSettings,
    RoomsPage,
    SettingsAnswer,
    TokensRevoked,
    Unbanned,
    UserDisconnected,
    UserErased,
    UsersAnswer,
    UsersBody,
)
from reactor.presence.bans import Ban
from reactor.presence.people import PersonInfo
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
    user = "/v1/users/{user}"
    page, bans = (LIMIT, CURSOR), api.ban_handlers
    return [
        Operation("GET", "/v1/overview", api.overview, "The state of the whole deployment", Overview),
        Operation(
            "GET", "/v1/rooms", api.rooms, "The rooms that have members", RoomsPage,
            (Query("search", "only rooms whose id contains this text, in upper or lower case"), *page),
        ),
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
        Operation("GET", user, api.user, "Whether a user is online, and in which rooms", PersonInfo),
        Operation(
            "POST", "/v1/users/query", api.users, f"The same of up to {MAX_USERS} users", UsersAnswer,
            body=UsersBody, errors=(408, 413),
        ),
        Operation("DELETE", user, api.erase_user, "Forget when a user was last seen", UserErased),
        Operation(
            "POST", user + "/disconnect", api.disconnect_user,
            "Remove a user from every room in which the user has a connection", UserDisconnected,
            (Query("message", "the message that the user receives"),),
        ),
        Operation(
            "POST", user + "/revoke", api.revoke_tokens,
            "Revoke the tokens of a user, and close the sockets that they opened", TokensRevoked,
            (
                Query(
                    "issuedBefore", "only tokens issued up to this time, in milliseconds since 1970",
                    "integer",
                ),
            ),
            errors=(409,),
        ),
        Operation(
            "POST", "/v1/bans", bans.ban, "Ban a user from a room, or from every room", Ban,
            body=BanBody, errors=(408, 409, 413),
        ),
        Operation("GET", "/v1/bans", bans.bans, "The bans that have not ended", BansPage, page),
        Operation(
            "DELETE", "/v1/bans/{user}", bans.unban, "Lift a ban", Unbanned,
            (Query("room", "the room of the ban; without it the ban from every room is lifted"),),
            errors=(404,),
        ),
        Operation("GET", "/v1/node", api.node, "The state of the server that answers", NodeState),
        Operation(
            "PUT", "/v1/node/drain", api.drain, "Send the clients of this server to the others", NodeState
        ),
        Operation("DELETE", "/v1/node/drain", api.resume, "Let this server admit clients again", NodeState),
        Operation(
            "PUT", "/v1/node/log-level", api.log_level, "Set this server's log level until it is reloaded",
            NodeState, body=LogLevel, errors=(408, 413),
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
