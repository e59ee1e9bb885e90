"""The request handlers of the admin API. They read Redis, so every node answers for the whole fleet."""

from heapq import nsmallest
from time import monotonic, time
from typing import Annotated, Any, NamedTuple

from anyio import Lock
from msgspec import UNSET, Meta, structs
from starlette.requests import Request

from reactor.admin import schemas
from reactor.admin.ban_handlers import BanHandlers
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
from reactor.fleet.reports import REPORT_TTL_MS, read_report
from reactor.log import log_level, set_log_level
from reactor.presence.keys import Entry
from reactor.presence.people import PersonInfo
from reactor.presence.replies import RoomListing
from reactor.presence.revocations import TooManyRevocations, checked_time
from reactor.presence.rows import member_from_hash
from reactor.presence.rules import TooManyRules
from reactor.presence.tags import MAX_SHARDS
from reactor.protocol.data import data_as_json
from reactor.protocol.ids import clean_id
from reactor.protocol.messages import Member, ProtocolError
from reactor.protocol.reasons import REASONS
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
MAX_SORTED_ROOMS = 1000
"""Rooms up to which they are listed in the order of their ids, for which all of them have to be read."""
MAX_USERS = 1000
"""Users that one request may ask for."""
MAX_BODY = 16_384
"""Bytes of a request's body, without the data of a message."""
SCAN_PAUSE = 20
"""The list of rooms is reused for this many times as long as its scan took, to limit the load of scans."""
MAX_AGE = 5.0
"""Seconds that the list of rooms is old at most. A longer scan is followed by as long a pause."""


class RoomsPosition(NamedTuple):
    """How far rooms have been listed: up to the room `after` in the page `page` of a shard.

    following: the page after that, by which a changed page is recognised.
    """

    shard: Annotated[int, Meta(ge=0, le=MAX_SHARDS)]
    page: Annotated[str, Meta(pattern="^[0-9]{1,20}$")]
    following: Annotated[str, Meta(pattern="^[0-9]{1,20}$")]
    after: str


_POSITION: Any = str | RoomsPosition


class AdminHandlers:
    """Handles requests by one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.ban_handlers = BanHandlers(node)
        self._rooms: tuple[float, dict[str, int]] = 0.0, {}
        self._rooms_until = 0.0
        self._scanning = Lock()

    # Rooms and members.

    async def rooms(self, request: Request) -> schemas.RoomsPage:
        """The rooms that have members: in the order of their ids, where they are few or searched."""
        position: Any = query_cursor(request, _POSITION)
        if isinstance(position, RoomsPosition):
            return await self._scanned_rooms(position, _limit(request))
        if position is None and "search" not in request.query_params and await self._are_many_rooms():
            return await self._scanned_rooms(RoomsPosition(0, "0", "0", ""), _limit(request))
        return await self._sorted_rooms(request, position)

    async def _are_many_rooms(self) -> bool:
        prefixes = self._node.store.keys.prefixes
        with errors_as_unavailable():
            counts = [await self._node.backend.client_of(key).zcard(f"{key}:rooms") for key in prefixes]
        return sum(counts) > MAX_SORTED_ROOMS

    async def _scanned_rooms(self, at: "RoomsPosition", limit: int) -> schemas.RoomsPage:
        """Rooms as the shards list them, page by page; of each page in the order of their ids."""
        found: list[schemas.RoomSize] = []
        shards = len(self._node.store.keys.shards)
        while at.shard < shards:
            following, counts = await self._node.store.rooms_page(at.shard, at.page)
            # A page that is not as it was is returned from its start: rather twice than not at all.
            after = at.after if following == at.following else ""
            names = sorted(room_id for room_id in counts if room_id > after)
            taken = names[: limit - len(found)]
            found += [schemas.RoomSize(room_id=room_id, count=counts[room_id]) for room_id in taken]
            if len(taken) < len(names):
                at = RoomsPosition(at.shard, at.page, following, taken[-1] if taken else after)
                break
            shard = at.shard + 1 if following == "0" else at.shard
            at = RoomsPosition(shard, following, "0", "")
        cursor = encode_cursor(at) if at.shard < shards else None
        return schemas.RoomsPage(rooms=found, cursor=cursor)

    async def _sorted_rooms(self, request: Request, after: str | None) -> schemas.RoomsPage:
        limit = _limit(request)
        part = request.query_params.get("search", "").casefold()
        _, counts = await self._all_rooms()
        following = (room_id for room_id in counts if after is None or room_id > after)
        names = nsmallest(limit + 1, (room_id for room_id in following if part in room_id.casefold()))
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
            key = self._node.store.keys.presence_key(entry)
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

    async def user(self, request: Request) -> PersonInfo:
        """Whether a user is online, and in which rooms."""
        (person,) = await self._node.people_store.people([self._user_id(request)])
        return person

    async def users(self, request: Request) -> schemas.UsersAnswer:
        """Whether each of several users is online, and in which rooms."""
        max_id = self._node.settings.max_id
        body = await read_body(request, schemas.UsersBody, MAX_USERS * (6 * max_id + 3) + MAX_BODY)
        if len(body.user_ids) > MAX_USERS:
            raise ApiError(400, "bad_request", f"userIds may name {MAX_USERS} users: send several requests.")
        try:
            user_ids = [clean_id(user_id, "a user in userIds", max_id) for user_id in body.user_ids]
        except ProtocolError as error:
            raise ApiError(400, error.code, f"{error.message}.") from None
        return schemas.UsersAnswer(users=await self._node.people_store.people(user_ids))

    async def erase_user(self, request: Request) -> schemas.UserErased:
        """Forget when a user was last seen."""
        user_id = self._user_id(request)
        return schemas.UserErased(user_id=user_id, erased=await self._node.people_store.erase(user_id))

    def _user_id(self, request: Request) -> str:
        return path_id(request, "user", self._node.settings.max_id)

    async def revoke_tokens(self, request: Request) -> schemas.TokensRevoked:
        """Revoke the tokens of a user."""
        user_id = path_id(request, "user", self._node.settings.max_id)
        text = request.query_params.get("issuedBefore")
        try:
            wanted = int(text) if text is not None and text.isdecimal() and len(text) < 16 else text
            time = await self._node.revocation_store.revoke(user_id, checked_time("issuedBefore", wanted))
        except SettingError as error:
            raise ApiError(400, "bad_request", str(error)) from None
        except TooManyRevocations as error:
            raise ApiError(409, "too_many_revocations", f"{error}.") from None
        return schemas.TokensRevoked(user_id=user_id, issued_before=time)

    async def disconnect_user(self, request: Request) -> schemas.UserDisconnected:
        """Remove a user from every room in which the user has a connection."""
        user_id = path_id(request, "user", self._node.settings.max_id)
        message = request.query_params.get("message", "")
        if message:
            message = MESSAGE.read("message", message)
        nodes = await self._node.registry.disconnect_user(user_id, message)
        return schemas.UserDisconnected(user_id=user_id, nodes=nodes)

    # This server alone.

    async def node(self, _request: Request) -> schemas.NodeState:
        """The state of the server that answers."""
        return self._node_state()

    async def drain(self, _request: Request) -> schemas.NodeState:
        """Send the clients of this server to the others."""
        self._node.readiness.drain()
        return self._node_state()

    async def resume(self, _request: Request) -> schemas.NodeState:
        """Admit clients again."""
        self._node.readiness.resume()
        return self._node_state()

    async def log_level(self, request: Request) -> schemas.NodeState:
        """Set the log level of this server, until it is reloaded."""
        set_log_level((await read_body(request, schemas.LogLevel, MAX_BODY)).level)
        return self._node_state()

    def _node_state(self) -> schemas.NodeState:
        node = self._node
        ready, status = node.readiness.status()
        return schemas.NodeState(
            node=node.name(), ready=ready, status=status, connections=len(node.gateway.connections),
            draining=node.readiness.draining, log_level=log_level(),
        )  # fmt: skip

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
            effective=_terms(self._node.settings.policy_under(rule, rule.match)),
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
        as_of, rooms = await self._all_rooms()
        largest = nsmallest(LARGEST_ROOMS, rooms.items(), key=lambda room: (-room[1], room[0]))
        nodes, reports = await node.registry.nodes(), await node.registry.reports()
        return schemas.Overview(
            now=round(time() * 1000),
            as_of=round(as_of * 1000),
            rooms=len(rooms),
            members=sum(rooms.values()),
            largest=[schemas.RoomSize(room_id=room_id, count=count) for room_id, count in largest],
            departures={**dict.fromkeys(REASONS, 0), **await node.departures.totals()},
            nodes=[
                _node_answer(_readable(name), record.about, *reports.get(name, (b"", 0)))
                for name, record in sorted(nodes.items(), key=lambda item: (item[1].about, item[0]))
            ],
        )

    async def _all_rooms(self) -> tuple[float, dict[str, int]]:
        """The number of members of each room, and when it was read (s since 1970): at most MAX_AGE ago."""
        async with self._scanning:
            if monotonic() >= self._rooms_until:
                start, as_of, rooms = monotonic(), time(), dict[str, int]()
                for shard in self._node.store.keys.shards:
                    rooms |= await self._node.store.rooms(shard)
                took = monotonic() - start
                self._rooms = as_of, rooms
                self._rooms_until = monotonic() + max(took, min(took * SCAN_PAUSE, MAX_AGE - took))
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


def _node_answer(name: str, about: str, text: bytes, expires_in: int) -> schemas.NodeAnswer:
    report = read_report(text)
    age = REPORT_TTL_MS - expires_in if report else None
    return schemas.NodeAnswer(node=name, about=about, report=report, report_age=age)


def _not_a_member() -> ApiError:
    return ApiError(404, "not_found", "this user is not in this room.")


def _terms(policy: RoomPolicy) -> schemas.RoomTerms:
    return schemas.RoomTerms(
        ttl=policy.ttl / 1000,
        grace=policy.grace / 1000,
        away_grace=policy.away_grace / 1000,
        close_grace=policy.close_grace / 1000,
        message=policy.message,
        max_members=policy.max_members,
    )


def _readable(name: str) -> str:
    """A node's name without the lone surrogates of an entry that another program wrote."""
    return name.encode(errors="replace").decode()
