"""Answers what clients ask about a room: its members, how many there are, and whether a user is among them.

No membership is needed for that, but a user who is banned from the room gets no answer. A room that this
node follows is listed from its view. The list of any other is read from Redis, and shared by all clients that
ask meanwhile.
"""

from collections.abc import Callable
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from reactor.gateway.connection import Connection
from reactor.gateway.cost import MEMBER_READ
from reactor.membership.ban_check import BanCheck
from reactor.membership.paid_lists import PaidLists
from reactor.presence.keys import Entry
from reactor.presence.listings import Listings
from reactor.presence.replies import Position
from reactor.presence.room_feed import RoomFeed
from reactor.presence.store import MAX_LISTED, Store
from reactor.protocol import intents, messages


class RoomQuestions:
    """One method for each kind of question; each raises Unavailable when Redis does not answer.

    charge: charges a connection for units of cost. bans: who may not ask. max_members_view: members up to
    which a whole room is listed.
    """

    def __init__(
        self, store: Store, feed: RoomFeed, lists: PaidLists,
        charge: Callable[[Connection, float], None], bans: BanCheck, *, max_members_view: int,
    ) -> None:  # fmt: skip
        self._store, self._feed, self._lists = store, feed, lists
        self._charge, self._bans = charge, bans
        self._max_members_view = max_members_view
        self._listings = Listings(store)

    async def list_members(self, connection: Connection, intent: intents.ListMembers) -> None:
        """Answer with the room's members: all, or a page, or of a large room their number alone."""
        if self._refuse_banned(connection, intent):
            return
        if intent.limit is not None or intent.cursor is not None:
            await self._list_page(connection, intent)
            return
        room_id, most = intent.room_id, self._max_members_view
        position = await self._store.count(room_id)
        if position.count > most:
            connection.send(_members_reply(room_id, position, UNSET, intent.id))
            return
        if self._feed.view(room_id) is None:
            listing = await self._listings.members(room_id)
            self._charge(connection, MEMBER_READ * len(listing.members))
            message = _members_reply(room_id, listing.position, UNSET, intent.id)
            await self._lists.prepare_members(connection, listing.members)
            if self._refuse_banned(connection, intent):
                return
            price = self._lists.send_members(connection, message, listing.members)
        else:
            view = await self._feed.wait_for_version(room_id, position.epoch, position.version)
            await self._lists.prepare(connection, view)
            if self._refuse_banned(connection, intent):
                return
            position = Position(position.now, view.epoch, view.version, len(view.members))
            message = _members_reply(room_id, position, UNSET, intent.id)
            whole = position.count <= most  # it may have grown
            price = self._lists.send(connection, message, view, whole=whole)
        self._charge(connection, price)

    async def count(self, connection: Connection, intent: intents.CountMembers) -> None:
        """Answer with the number of the room's members."""
        if self._refuse_banned(connection, intent):
            return
        at = await self._store.count(intent.room_id)
        connection.send(messages.CountReply(intent.room_id, at.epoch, at.version, at.count, intent.id))

    async def is_present(self, connection: Connection, intent: intents.AskPresent) -> None:
        """Answer whether a user is in the room."""
        if self._refuse_banned(connection, intent):
            return
        present = await self._store.is_present(Entry(intent.room_id, intent.user_id))
        connection.send(messages.IsPresentReply(intent.room_id, intent.user_id, present, intent.id))

    async def _list_page(self, connection: Connection, intent: intents.ListMembers) -> None:
        room_id, limit = intent.room_id, intent.limit or MAX_LISTED
        listing, cursor = await self._store.page(room_id, intent.cursor or "0", limit)
        self._charge(connection, MEMBER_READ * len(listing.members))
        reply = _members_reply(room_id, listing.position, UNSET, intent.id)
        reply = replace(reply, cursor=cursor if cursor != "0" else None)
        await self._lists.prepare_members(connection, listing.members)
        if self._refuse_banned(connection, intent):
            return
        self._charge(connection, self._lists.send_members(connection, reply, listing.members))

    def _refuse_banned(
        self, connection: Connection, intent: intents.ListMembers | intents.CountMembers | intents.AskPresent
    ) -> bool:
        """Refuse a question of a user who is banned from the room; return whether that was so.

        Asked again before a list is sent, since it may wait for minutes until its receiver can pay for it.
        """
        ban = self._bans.ban_of(connection, intent.room_id)
        if ban is None:
            return False
        self._bans.refuse(connection, ban, intent.room_id, intent.id)
        return True


def _members_reply(
    room_id: str, at: Position, members: Any, request_id: messages.RequestId | None
) -> messages.MembersReply:
    return messages.MembersReply(room_id, at.epoch, at.version, at.count, members, request_id)
