"""The request handlers of the admin API. They read Redis, so every node answers for the whole fleet."""

from heapq import nsmallest
from time import monotonic, time
from typing import Annotated, Any

from msgspec import UNSET, Meta, structs
from starlette.requests import Request

from reactor.admin import schemas
from reactor.admin.parameters import (
    ApiError,
    encode_cursor,
    path_id,
    query_cursor,
    query_limit,
    query_room,
    read_body,
)
from reactor.backend.clients import errors_as_unavailable
from reactor.errors import ReactorError, SettingError
from reactor.fleet.reports import read_report
from reactor.presence.keys import SHARDS, Entry, presence_key
from reactor.presence.rows import member_from_hash
from reactor.presence.rules import TooManyRules
from reactor.presence.store import RoomListing
from reactor.protocol.data import data_as_json
from reactor.protocol.messages import Member, ProtocolError
from reactor.server.node import Node
from reactor.settings import RoomPolicy, RoomRule
from reactor.settings.kinds import duration
from reactor.settings.rooms import KEYS, MESSAGE

StreamId = Annotated[str, Meta(pattern=r"^[0-9]{1,18}-[0-9]{1,18}$")]
"""The id of a stream entry (https://redis.io/docs/latest/develop/data-types/streams/#entry-ids)."""

MAX_LIMIT = 1000
"""Items in one response."""
DEFAULT_LIMIT = 100
LARGEST_ROOMS = 20
MAX_BODY = 16_384
"""Bytes of a request's body, without the data of a message."""
SCAN_PAUSE = 20
"""The list of rooms is reused for this many times as long as its scan took, to limit the load of scans."""


class AdminHandlers:
    """Handles requests by one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rooms: dict[str, int] = {}
        self._rooms_until = 0.0

    # Rooms and members.

    async def rooms(self, request: Request) -> schemas.RoomsPage:
        """The rooms that have members."""
        limit, after = _limit(request), query_cursor(request, str)
        counts = await self._all_rooms()
        names = nsmallest(limit + 1, (room_id for room_id in counts if after is None or room_id > after))
        rooms = [schemas.RoomSize(room_id=room_id, count=counts[room_id]) for room_id in names[:limit]]
        cursor = encode_cursor(names[limit - 1]) if len(names) > limit else None
        return schemas.RoomsPage(rooms=rooms, cursor=cursor)

    async def room(self, request: Request) -> schemas.RoomAnswer:
        """The position and the count of a room."""
        room_id = self._room_id(request)
        at = await self._node.store.count(room_id)
        return schemas.RoomAnswer(room_id=room_id, epoch=at.epoch, version=at.version, count=at.count)

    async def members(self, request: Request) -> schemas.MembersPage:
        """The members of a room."""
        room_id, limit = self._room_id(request), _limit(request)
        after = query_cursor(request, tuple[int, str])
        listing = await self._node.store.members(room_id)
        following = (member for member in listing.members if after is None or _order(member) > after)
        members = nsmallest(limit + 1, following, key=_order)
        cursor = encode_cursor(_order(members[limit - 1])) if len(members) > limit else None
        return _members_page(room_id, listing, members[:limit], cursor)

    async def member(self, request: Request) -> Member:
        """One member of a room."""
        entry = self._entry(request)
        if await self._node.store.is_present(entry):
            key = presence_key(self._node.settings.namespace, entry)
            with errors_as_unavailable():
                fields: Any = await self._node.backend.client_of(key).hgetall(key)
            member = member_from_hash(fields)
            if member is not None:
                return member
        raise _not_a_member()

    async def kick(self, request: Request) -> schemas.Kicked:
        """Remove a member."""
        entry = self._entry(request)
        message = request.query_params.get("message", "")
        if message:
            message = MESSAGE.read("message", message)
        if not await self._node.store.kick(entry, message):
            raise _not_a_member()
        return schemas.Kicked(room_id=entry.room_id, user_id=entry.user_id)

    async def message(self, request: Request) -> schemas.MessageSent:
        """Publish a message to everyone in a room."""
        room_id, max_data = self._room_id(request), self._node.settings.max_message
        body = await read_body(request, schemas.MessageBody, max_data + MAX_BODY)
        try:
            data = data_as_json(body.data, max_data)
        except ProtocolError as error:
            raise ApiError(
                413 if error.code == "data_too_big" else 400, error.code, f"{error.message}."
            ) from None
        now, nodes = await self._node.store.publish_message(room_id, data)
        return schemas.MessageSent(room_id=room_id, timestamp=now, nodes=nodes)

    # Settings of a room.

    async def settings(self, request: Request) -> schemas.SettingsAnswer:
        """The settings of a room, and those in effect there."""
        room_id = self._room_id(request)
        return self._settings_answer(await self._node.rules.read(room_id) or RoomRule(match=room_id))

    async def put_settings(self, request: Request) -> schemas.SettingsAnswer:
        """Set the settings of a room."""
        room_id = self._room_id(request)
        body = await read_body(request, schemas.RoomSettings, MAX_BODY)
        given = {key: value for key, value in structs.asdict(body).items() if value is not UNSET}
        if not given:
            raise ApiError(400, "bad_request", f"the body contains no setting; there are {', '.join(KEYS)}.")
        try:
            rule = RoomRule(
                match=room_id, **{key: KEYS[key].read(key, value) for key, value in given.items()}
            )
            await self._node.rules.put(rule)
        except TooManyRules as error:
            raise ApiError(409, "too_many_settings", f"{error}.") from None
        except SettingError as error:
            raise ApiError(400, "bad_request", str(error)) from None
        return self._settings_answer(rule)

    async def remove_settings(self, request: Request) -> schemas.SettingsAnswer:
        """Remove the settings of a room, so that those of the server apply."""
        room_id = self._room_id(request)
        if not await self._node.rules.remove(room_id):
            raise ApiError(404, "not_found", "this room has no settings.")
        return self._settings_answer(RoomRule(match=room_id))

    def _settings_answer(self, rule: RoomRule) -> schemas.SettingsAnswer:
        settings = {key: getattr(rule, key) for key in KEYS if getattr(rule, key) is not None}
        return schemas.SettingsAnswer(
            room_id=rule.match,
            settings=schemas.RoomSettings(**settings),
            effective=_terms(self._node.settings.policy_under(rule)),
        )

    # Departures and the overview.

    async def departures(self, request: Request) -> schemas.DeparturesPage:
        """Departures and their reasons."""
        room_id = query_room(request, self._node.settings.max_id)
        after = query_cursor(request, dict[str, StreamId]) or {}
        found, positions = await self._node.departures.page(
            after, room_id=room_id, since=_since(request), limit=_limit(request)
        )
        return schemas.DeparturesPage(departures=found, cursor=encode_cursor(positions))

    async def overview(self, _request: Request) -> schemas.Overview:
        """The state of the whole deployment."""
        node = self._node
        rooms = await self._all_rooms()
        largest = nsmallest(LARGEST_ROOMS, rooms.items(), key=lambda room: (-room[1], room[0]))
        nodes, reports = await node.registry.nodes(), await node.registry.reports()
        return schemas.Overview(
            now=round(time() * 1000),
            rooms=len(rooms),
            members=sum(rooms.values()),
            largest=[schemas.RoomSize(room_id=room_id, count=count) for room_id, count in largest],
            departures=dict(await node.departures.totals()),
            nodes=[
                schemas.NodeAnswer(node=name, about=record.about, report=read_report(reports.get(name, b"")))
                for name, record in sorted(nodes.items(), key=lambda item: (item[1].about, item[0]))
            ],
        )

    async def _all_rooms(self) -> dict[str, int]:
        """The number of members of each room, at most a little out of date."""
        if monotonic() >= self._rooms_until:
            start, rooms = monotonic(), dict[str, int]()
            for shard in range(SHARDS):
                rooms |= await self._node.store.rooms(shard)
            self._rooms = rooms
            self._rooms_until = monotonic() + (monotonic() - start) * SCAN_PAUSE
        return self._rooms

    def _room_id(self, request: Request) -> str:
        return path_id(request, "room", self._node.settings.max_id)

    def _entry(self, request: Request) -> Entry:
        return Entry(self._room_id(request), path_id(request, "user", self._node.settings.max_id))


def _limit(request: Request) -> int:
    return query_limit(request, MAX_LIMIT, DEFAULT_LIMIT)


def _since(request: Request) -> int:
    """The `since` of the query in ms since 1970; it may also be a duration before now. Raises ApiError."""
    text = request.query_params.get("since")
    if text is None:
        return 0
    if text.isascii() and text.isdigit():
        return min(int(text), 2**62)
    try:
        seconds: float = duration(0.001).read("since", text)
        return round((time() - seconds) * 1000)
    except ReactorError:
        sentence = "since takes milliseconds since 1970, or a duration before now such as 15m or 1h."
        raise ApiError(400, "bad_request", sentence) from None


def _order(member: Member) -> tuple[int, str]:
    return member.joined_at, member.user_id


def _members_page(
    room_id: str, listing: RoomListing, members: list[Member], cursor: str | None
) -> schemas.MembersPage:
    at = listing.position
    return schemas.MembersPage(
        room_id=room_id, epoch=at.epoch, version=at.version, count=at.count, members=members, cursor=cursor
    )


def _not_a_member() -> ApiError:
    return ApiError(404, "not_found", "this user is not in this room.")


def _terms(policy: RoomPolicy) -> schemas.RoomTerms:
    return schemas.RoomTerms(
        ttl=policy.ttl / 1000,
        grace=policy.grace / 1000,
        away_grace=policy.away_grace / 1000,
        message=policy.message,
        max_members=policy.max_members,
    )
