"""The request handlers of the admin API for bans."""

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
from reactor.errors import SettingError
from reactor.presence.bans import BY, FIRST, FOR, MESSAGE, Ban, BanPosition, TooManyBans
from reactor.protocol.ids import clean_id
from reactor.protocol.messages import ProtocolError
from reactor.server.node import Node

MAX_BODY = 16_384
"""Bytes of a request's body."""
MAX_LIMIT, DEFAULT_LIMIT = 1000, 100
"""Bans in one response."""


class BanHandlers:
    """Handles requests about bans by one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def ban(self, request: Request) -> Ban:
        """Ban a user from a room, or from every room."""
        body, limit = await read_body(request, schemas.BanBody, MAX_BODY), self._node.settings.max_id
        try:
            user_id = clean_id(body.user_id, "userId", limit)
            room_id = None if body.room_id is None else clean_id(body.room_id, "roomId", limit)
            seconds = FOR.read("for", body.for_)
            message = MESSAGE.read("message", body.message) if body.message else ""
            by = BY.read("by", body.by) if body.by else ""
            return await self._node.bans.ban(user_id, room_id, seconds=seconds, message=message, by=by)
        except ProtocolError as error:
            raise ApiError(400, error.code, f"{error.message}.") from None
        except SettingError as error:
            raise ApiError(400, "bad_request", str(error)) from None
        except TooManyBans as error:
            raise ApiError(409, "too_many_bans", f"{error}.") from None

    async def bans(self, request: Request) -> schemas.BansPage:
        """The bans that have not ended."""
        at = query_cursor(request, BanPosition) or FIRST
        bans, following = await self._node.bans.page(at, query_limit(request, MAX_LIMIT, DEFAULT_LIMIT))
        return schemas.BansPage(bans=bans, cursor=encode_cursor(following) if following else None)

    async def unban(self, request: Request) -> schemas.Unbanned:
        """Lift a ban."""
        limit = self._node.settings.max_id
        user_id, room_id = path_id(request, "user", limit), query_room(request, limit)
        if not await self._node.bans.unban(user_id, room_id):
            raise ApiError(404, "not_found", "there is no such ban.")
        return schemas.Unbanned(user_id=user_id, room_id=room_id)
