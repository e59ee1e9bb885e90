"""What the admin API does: each method answers one kind of request, from Redis and for the whole fleet."""

from heapq import nsmallest
from time import monotonic, time
from typing import Annotated, Any

from msgspec import UNSET, Meta, structs
from starlette.requests import Request

from reactor.admin import answers as say
from reactor.admin.asked import (
    Problem,
    body_of,
    cursor_in,
    cursor_of,
    id_in,
    limit_in,
    room_in_query,
)
from reactor.backend.clients import errors_as_unavailable
from reactor.errors import ReactorError, SettingError
from reactor.fleet.reports import read_report
from reactor.presence.keys import SHARDS, Entry, presence_key
from reactor.presence.rows import member_from_hash
from reactor.presence.rules import TooManyRules
from reactor.presence.store import Listing
from reactor.protocol.data import data_as_json
from reactor.protocol.messages import Member, ProtocolError
from reactor.server.node import Node
from reactor.settings import RoomPolicy, RoomRule
from reactor.settings.kinds import duration
from reactor.settings.rooms import KEYS, MESSAGE

StreamId = Annotated[str, Meta(pattern=r"^[0-9]{1,18}-[0-9]{1,18}$")]
"""A place in a stream (https://redis.io/docs/latest/develop/data-types/streams/#entry-ids)."""

MOST = 1000
"""Things in one answer."""
USUAL = 100
LARGEST = 20
BODY = 16_384
"""Bytes of a body that holds no message."""
SHARE_OF_TIME = 20
"""The rooms are not looked through again before this many times what it took has passed."""


class Api:
    """Answers for one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rooms: dict[str, int] = {}
        self._rooms_until = 0.0

    # Rooms and who is in them.

    async def rooms(self, request: Request) -> say.RoomsPage:
        """The rooms with somebody in them."""
        limit, after = limit_in(request, MOST, USUAL), cursor_in(request, str)
        found = await self._all_rooms()
        names = nsmallest(limit + 1, (room_id for room_id in found if after is None or room_id > after))
        rooms = [say.RoomSize(room_id=room_id, count=found[room_id]) for room_id in names[:limit]]
        return say.RoomsPage(rooms=rooms, cursor=cursor_of(names[limit - 1]) if len(names) > limit else None)

    async def room(self, request: Request) -> say.RoomAnswer:
        """Where a room stands."""
        room_id = self._room_id(request)
        at = await self._node.store.count(room_id)
        return say.RoomAnswer(room_id=room_id, epoch=at.epoch, version=at.version, count=at.count)

    async def members(self, request: Request) -> say.MembersPage:
        """Who is in a room."""
        room_id, limit = self._room_id(request), limit_in(request, MOST, USUAL)
        after = cursor_in(request, tuple[int, str])
        listing = await self._node.store.members(room_id)
        behind = (member for member in listing.members if after is None or _place(member) > after)
        members = nsmallest(limit + 1, behind, key=_place)
        cursor = cursor_of(_place(members[limit - 1])) if len(members) > limit else None
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
        raise _not_here()

    async def kick(self, request: Request) -> say.Kicked:
        """Put a member out."""
        entry = self._entry(request)
        message = request.query_params.get("message", "")
        if message:
            message = MESSAGE.read("message", message)
        if not await self._node.store.kick(entry, message):
            raise _not_here()
        return say.Kicked(room_id=entry.room_id, user_id=entry.user_id)

    async def message(self, request: Request) -> say.MessageSent:
        """Say something to everyone in a room."""
        room_id, most = self._room_id(request), self._node.settings.max_message
        body = await body_of(request, say.MessageBody, most + BODY)
        try:
            data = data_as_json(body.data, most)
        except ProtocolError as error:
            raise Problem(
                413 if error.code == "data_too_big" else 400, error.code, f"{error.message}."
            ) from None
        now, nodes = await self._node.store.say(room_id, data)
        return say.MessageSent(room_id=room_id, timestamp=now, nodes=nodes)

    # What differs in a room.

    async def settings(self, request: Request) -> say.SettingsAnswer:
        """What was set for a room, and what holds there."""
        room_id = self._room_id(request)
        return self._settings_answer(await self._node.rules.read(room_id) or RoomRule(match=room_id))

    async def put_settings(self, request: Request) -> say.SettingsAnswer:
        """Set what differs in a room."""
        room_id = self._room_id(request)
        body = await body_of(request, say.RoomSettings, BODY)
        given = {key: value for key, value in structs.asdict(body).items() if value is not UNSET}
        if not given:
            raise Problem(400, "bad_request", f"the body sets nothing; there are {', '.join(KEYS)}.")
        try:
            rule = RoomRule(
                match=room_id, **{key: KEYS[key].read(key, value) for key, value in given.items()}
            )
            await self._node.rules.put(rule)
        except TooManyRules as error:
            raise Problem(409, "too_many_settings", f"{error}.") from None
        except SettingError as error:
            raise Problem(400, "bad_request", str(error)) from None
        return self._settings_answer(rule)

    async def remove_settings(self, request: Request) -> say.SettingsAnswer:
        """Let what holds everywhere hold in a room again."""
        room_id = self._room_id(request)
        if not await self._node.rules.remove(room_id):
            raise Problem(404, "not_found", "nothing was set for this room.")
        return self._settings_answer(RoomRule(match=room_id))

    def _settings_answer(self, rule: RoomRule) -> say.SettingsAnswer:
        own = {key: getattr(rule, key) for key in KEYS if getattr(rule, key) is not None}
        return say.SettingsAnswer(
            room_id=rule.match,
            settings=say.RoomSettings(**own),
            effective=_terms(self._node.settings.policy_under(rule)),
        )

    # What was, and how all is.

    async def departures(self, request: Request) -> say.DeparturesPage:
        """Who left and why."""
        room_id = room_in_query(request, self._node.settings.max_id)
        after = cursor_in(request, dict[str, StreamId]) or {}
        found, positions = await self._node.departures.page(
            after, room_id=room_id, since=_since(request), limit=limit_in(request, MOST, USUAL)
        )
        return say.DeparturesPage(departures=found, cursor=cursor_of(positions))

    async def overview(self, _request: Request) -> say.Overview:
        """All at a glance."""
        node = self._node
        rooms = await self._all_rooms()
        largest = nsmallest(LARGEST, rooms.items(), key=lambda room: (-room[1], room[0]))
        nodes, reports = await node.registry.nodes(), await node.registry.reports()
        return say.Overview(
            now=round(time() * 1000),
            rooms=len(rooms),
            members=sum(rooms.values()),
            largest=[say.RoomSize(room_id=room_id, count=count) for room_id, count in largest],
            departures=dict(await node.departures.totals()),
            nodes=[
                say.NodeAnswer(node=name, about=record.about, report=read_report(reports.get(name, b"")))
                for name, record in sorted(nodes.items(), key=lambda one: (one[1].about, one[0]))
            ],
        )

    async def _all_rooms(self) -> dict[str, int]:
        if monotonic() >= self._rooms_until:
            begun, found = monotonic(), dict[str, int]()
            for shard in range(SHARDS):
                found |= await self._node.store.rooms(shard)
            self._rooms = found
            self._rooms_until = monotonic() + (monotonic() - begun) * SHARE_OF_TIME
        return self._rooms

    # Ids.

    def _room_id(self, request: Request) -> str:
        return id_in(request, "room", self._node.settings.max_id)

    def _entry(self, request: Request) -> Entry:
        return Entry(self._room_id(request), id_in(request, "user", self._node.settings.max_id))


def _since(request: Request) -> int:
    """The start that is asked for, in ms since 1970: given so, or as a duration before now."""
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
        raise Problem(400, "bad_request", sentence) from None


def _place(member: Member) -> tuple[int, str]:
    return member.joined_at, member.user_id


def _members_page(
    room_id: str, listing: Listing, members: list[Member], cursor: str | None
) -> say.MembersPage:
    at = listing.position
    return say.MembersPage(
        room_id=room_id, epoch=at.epoch, version=at.version, count=at.count, members=members, cursor=cursor
    )


def _not_here() -> Problem:
    return Problem(404, "not_found", "this user is not in this room.")


def _terms(policy: RoomPolicy) -> say.RoomTerms:
    return say.RoomTerms(
        ttl=policy.ttl / 1000,
        grace=policy.grace / 1000,
        away_grace=policy.away_grace / 1000,
        message=policy.message,
        max_members=policy.max_members,
    )
