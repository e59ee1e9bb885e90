"""Bans: users who may not join a room, or any room, until a time.

A ban is a key with a TTL. A join reads the keys of bans in its own script, so no join that Redis takes after
a ban succeeds. The ban of one room is one script in the room's shard: key and removal happen at once. A ban
everywhere has a copy in every shard. Each copy is set first, and the user is then removed from the shard's
rooms: a join before that is found there, and a join after it is refused. Both are published as they are
made or lifted, for what no join goes with: logins and watches, see known_bans.py.

A list of the bans, kept without a TTL, serves `page`, and `repair`, with which the sweep completes what was
interrupted and restores what was evicted.
"""

from asyncio import gather
from collections.abc import AsyncIterator, Sequence
from typing import Any

from msgspec import Struct, json
from msgspec.structs import replace

from reactor.backend.interface import Runner
from reactor.errors import UNREADABLE, ReactorError
from reactor.presence.keys import Keyspace, escape, unescape
from reactor.settings import kinds

MAX_BANS = 10_000
"""Bans of all rooms of a shard, and bans everywhere, at most."""
MAX_BY = 200
"""Characters of `by`."""
FOR = kinds.duration(1.0)
"""How long a ban may last."""
MESSAGE = kinds.text("a text of 1 to 500 characters on one line", r"[^\x00-\x1f\x7f]{1,500}")
BY = kinds.text(f"a text of 1 to {MAX_BY} characters on one line", rf"[^\x00-\x1f\x7f]{{1,{MAX_BY}}}")

ROOMS_PAGE = 500
"""Rooms in which one call looks for a banned user."""
AUDIT_PAGE = 200
"""Bans that one call of the sweep looks at."""
RECENT = 600_000
"""Milliseconds for which the sweep repeats a ban everywhere, in case its caller was interrupted."""


class Ban(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A user who may not join. Times are milliseconds since 1970, by Redis's clock.

    room_id: None for every room. message: for the user, empty for the usual sentence. by: who decided it, as
    the caller said. at: when it was made, 0 where Redis evicted its key meanwhile.
    """

    user_id: str
    room_id: str | None = None
    message: str = ""
    by: str = ""
    until: int = 0
    at: int = 0


class TooManyBans(ReactorError):
    """There are MAX_BANS bans in the shard, or everywhere, already."""


class BanPosition(Struct, frozen=True, array_like=True):
    """How far bans have been listed: up to the one named `after`, which ends at `score` (ms), of a place.

    place: 0 for bans everywhere, from 1 on those of a shard's rooms.
    """

    place: int
    score: int
    after: bytes


FIRST = BanPosition(0, 0, b"")

_decode = json.Decoder(Ban).decode


def published_ban(payload: bytes) -> Ban | None:
    """Return a ban as it was published, one without an end where it was lifted; None if it is unreadable."""
    try:
        return _decode(payload)
    except UNREADABLE:
        return None


def ban_from(record: bytes, user_id: str, room_id: str | None, until: int = 0) -> Ban:
    """Return a ban from its record, or from the rest where that is missing or was edited externally."""
    try:
        return _decode(record)
    except UNREADABLE:
        return Ban(user_id=user_id, room_id=room_id, until=until)


class Bans:
    """The bans of one namespace. Every call raises Unavailable when Redis does not answer."""

    def __init__(self, runner: Runner, keys: Keyspace) -> None:
        self._runner, self._keys = runner, keys
        self._fleet = keys.fleet

    async def ban(
        self, user_id: str, room_id: str | None, *, seconds: float, message: str = "", by: str = ""
    ) -> Ban:
        """Ban a user from a room, or everywhere, in place of an earlier ban there; return once it holds.

        Memberships end with it. Where this raises Unavailable, it may hold in part: repeat it.
        Raises TooManyBans.
        """
        status, *reply = await self._set(user_id, room_id, round(seconds * 1000), message, by)
        if status == b"full":
            where = "of rooms in this shard" if room_id is not None else "of users everywhere"
            raise TooManyBans(f"there are {MAX_BANS} bans {where}, the most there may be: lift some")
        ban = ban_from(reply[0], user_id, room_id)
        if room_id is None:
            await self._apply_everywhere(ban, reply[0])
        return ban

    async def unban(self, user_id: str, room_id: str | None = None) -> bool:
        """Lift the ban of a user from a room, or the one everywhere; return whether there was one."""
        return await self._lift(user_id, room_id)

    async def repeat(self, change: Ban, *, age: int) -> None:
        """Make a change again that Redis may have forgotten: a ban, or the end of one where it has no end.

        What was changed later stays. `at` says when it was. age: milliseconds since the caller heard of it.
        """
        user_id, room_id = change.user_id, change.room_id
        if not change.until:
            await self._lift(user_id, room_id, change.at, age)
            return
        ttl = change.until - change.at
        status, *reply = await self._set(user_id, room_id, ttl, change.message, change.by, change.at, age)
        if status == b"banned" and room_id is None:
            await self._apply_everywhere(change, reply[0], anew=True)

    async def _lift(self, user_id: str, room_id: str | None, before: int | str = "", age: int = 0) -> bool:
        ban_id = _id_of(user_id, room_id)
        if room_id is not None:
            prefix = self._keys.prefix_of(room_id)
            return bool(await self._runner.run("lift_ban", prefix, ban_id, 1, before, age))
        # Asked first: a shard's server may be another one, which does not know whose ban its copy is of.
        if before != "" and await self._runner.run("lift_ban", self._fleet, ban_id, "?", before, age):
            return False
        # The list comes last: while the ban is in it, the sweep restores the copies of an interrupted call.
        lifted = await self._remove_copies(user_id, before, age)
        listed = await self._runner.run("lift_ban", self._fleet, ban_id, 1, before, age)
        return lifted or listed == 1

    async def _remove_copies(self, user_id: str, before: int | str, age: int = 0) -> bool:
        calls = (
            self._runner.run("lift_ban", self._shard(shard), _id_of(user_id, None), 0, before, age)
            for shard in self._keys.shards
        )
        return any(await gather(*calls))

    async def page(self, at: BanPosition = FIRST, limit: int = 100) -> tuple[list[Ban], BanPosition | None]:
        """Return some bans, and the position of the next ones, or None on the last page.

        First those everywhere, then those of each shard's rooms; of each the one that ends first in front.
        """
        found: list[Ban] = []
        while at.place <= len(self._keys.shards):
            prefix = self._shard(at.place - 1) if at.place else self._fleet
            wanted = limit - len(found)
            rows = await self._runner.run("list_bans", prefix, at.score, at.after, wanted)
            found += [_listed(*rows[i : i + 3]) for i in range(0, len(rows), 3)]
            if len(rows) == 3 * wanted:
                return found, BanPosition(at.place, rows[-2], rows[-3])
            at = BanPosition(at.place + 1, 0, b"")
        return found, None

    async def all(self) -> AsyncIterator[Ban]:
        """Yield every ban, as `page` has them."""
        at: BanPosition | None = FIRST
        while at is not None:
            bans, at = await self.page(at, AUDIT_PAGE)
            for ban in bans:
                yield ban

    async def repair(self, now: int) -> int:
        """Complete bans that were interrupted, and restore keys that were evicted. now: Redis's time (ms).

        Returns how many bans everywhere were applied again.
        """
        for shard in self._keys.shards:
            await self._repair_rooms(shard)
        applied = 0
        at: BanPosition | None = FIRST
        await self._audit(self._fleet)
        while at is not None and at.place == 0:
            bans, at = await self.page(at, AUDIT_PAGE)
            everywhere = [ban for ban in bans if ban.room_id is None]
            missing = await self._restore_copies(everywhere)
            for place, ban in enumerate(everywhere):
                if ban.at > now - RECENT or place in missing:
                    await self._apply_again(ban)
                    applied += 1
        return applied

    # Private methods.

    def _shard(self, shard: int) -> str:
        return self._keys.prefixes[shard]

    async def _set(
        self,
        user_id: str,
        room_id: str | None,
        ttl: int,
        message: str,
        by: str,
        made: int | str = "",
        age: int = 0,
    ) -> Any:
        terms = escape(user_id), ttl, message, by, MAX_BANS, made, age
        if room_id is None:
            return await self._runner.run("set_user_ban", self._fleet, *terms)
        return await self._runner.run("ban", self._keys.prefix_of(room_id), escape(room_id), *terms)

    async def _apply_everywhere(self, ban: Ban, record: bytes, *, anew: bool = False) -> None:
        """Set the copies of a ban and end all memberships, unless it is lifted meanwhile.

        anew: also where its copy was lifted, as it is made again since.
        """
        shards = self._keys.shards
        cursors = await gather(*(self._apply(shard, ban, record, "0", anew=anew) for shard in shards))
        await gather(*(self._finish(shard, ban, record, cursors[shard], anew=anew) for shard in shards))

    async def _apply(self, shard: int, ban: Ban, record: bytes, cursor: str, *, anew: bool = False) -> str:
        following, _ = await self._runner.run(
            "ban_user", self._shard(shard), escape(ban.user_id), record, ban.until, ban.message, cursor,
            ROOMS_PAGE, int(anew),
        )  # fmt: skip
        return following.decode()  # type: ignore[no-any-return]

    async def _finish(self, shard: int, ban: Ban, record: bytes, cursor: str, *, anew: bool) -> None:
        while cursor != "0":
            cursor = await self._apply(shard, ban, record, cursor, anew=anew)

    async def _repair_rooms(self, shard: int) -> None:
        score, after = "0", b""
        while score:
            reply = await self._audit(self._shard(shard), score, after)
            score, after = reply[0].decode(), reply[1]

    async def _audit(
        self,
        prefix: str,
        score: str = "0",
        after: bytes = b"",
        size: int = AUDIT_PAGE,
        copies: Sequence[Ban] = (),
    ) -> Any:
        flat = [part for ban in copies for part in (escape(ban.user_id), json.encode(ban), ban.until)]
        return await self._runner.run("audit_bans", prefix, score, after, size, *flat)

    async def _restore_copies(self, bans: list[Ban]) -> set[int]:
        """Set the copies that are missing in any shard; return the places of their bans."""
        if not bans:
            return set()
        replies = await gather(
            *(self._audit(self._shard(shard), size=0, copies=bans) for shard in self._keys.shards)
        )
        return {place for _, _, *places in replies for place in places}

    async def _apply_again(self, ban: Ban) -> None:
        await self._apply_everywhere(ban, json.encode(ban))
        if not await self._is_listed(ban):
            # It was lifted meanwhile, or Redis went back to before it: then nodes that know it may repeat it.
            await self._remove_copies(ban.user_id, ban.at + 1 if ban.at else "")
            if await self._is_listed(ban):
                await self._apply_everywhere(ban, json.encode(ban), anew=True)

    async def _is_listed(self, ban: Ban) -> bool:
        rows = await self._runner.run("list_bans", self._fleet, ban.until, "", AUDIT_PAGE)
        return _id_of(ban.user_id, None).encode() in rows[::3]


def _id_of(user_id: str, room_id: str | None) -> str:
    """Return the name of a ban in Redis."""
    user = f"user:{escape(user_id)}"
    return user if room_id is None else f"room:{escape(room_id)}:{user}"


def _listed(ban_id: bytes, ends_at: int, record: bytes) -> Ban:
    room, _, user = ban_id.decode(errors="replace").removeprefix("room:").rpartition("user:")
    room_id = unescape(room.removesuffix(":")) if room else None
    return replace(ban_from(record, unescape(user), room_id, ends_at), until=ends_at)
