"""Keeps the index of people: what a node writes there with joins and departures, and how it is repaired.

What it guarantees. On one server (`direct`) the script that makes a join, a leave or a claim changes the
record of the user as well, so that both are done or neither. On a cluster the record may be on another server
than the room. There a room is in the record before the join is sent; it counts, and brings its user online,
once the join has succeeded (`joined`), so no watcher sees a join that is refused. Joins of the same moment
share a call for each shard. A departure is noted in the room's shard by the script that makes it, so that it
cannot be lost; whichever node made it has it taken out of the record at once (`departed`), and the leader
does that for the rest once a second, so a node that dies in between delays it by that. So it is on one server
too for the departures that other scripts make: of a kick or a ban, say.

What is repaired. Where a join was refused, or got no answer, or its node died before it, the record may name
a room too much. Such a suspect is removed when its token and its absence are the same SETTLE_TIME later, when
no join that was under way can arrive any more. Suspects are found by the calls of this node that failed, by
departures with another token, and by `audit`, which compares the records with the presence keys, and the
members of rooms with the records: members that records lack, since Redis lost these or the index was off,
are added. It does so for all users after a node was lost and after whatever makes the sweep start by itself,
with the next sweep after Redis evicted keys or one had a wrong type, and for one part of them with each other
regular sweep.

Where the setting `people` is off (`adding` false), a node adds nothing, and still takes departures out and
removes what is too much: other nodes may keep the index, or have kept it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import count, islice
from secrets import token_hex
from typing import NamedTuple

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.presence.keys import Entry
from reactor.presence.people import MAX_ROOMS, Correction, Entered, Exit, PeopleStore, read_exit
from reactor.tasks import Spawner

log = structlog.get_logger()

POLL_INTERVAL = 1.0
"""Seconds after which the leader takes in departures whose node has not done so."""
SETTLE_TIME = 5.0
"""Seconds in which a join that is under way arrives, or is registered again by its node."""
CONFIRM_DELAY = 0.001
"""Seconds for which confirmations wait for others: the replies to the joins go first."""
RETRY_DELAY = 0.2
"""Seconds between attempts while Redis does not answer."""
AUDIT_PARTS = 10
"""Regular sweeps after which all users have been audited."""
MAX_AWAY = 100
"""Changes of `away` in one call: about 2 ms of Redis's time."""
MAX_AUDITED = 500
"""Members of rooms in one call of an audit: about a millisecond of Redis's time."""


class _Suspect(NamedTuple):
    """A room in a record that may be one too much: with this token, since this time of the loop."""

    token: str
    since: float


class Joining(NamedTuple):
    """A room that was added to a record: of this member, for the join with this token, at a time of the loop.

    asked: what is to be done once the join has succeeded; None where the join itself adds the room.
    """

    entry: Entry
    token: str
    at: float
    asked: Entered | None


class PeopleIndex:
    """The index as one process keeps it. `confirm` has to run, and `serve` on nodes.

    direct: whether joins, leaves and claims change the index themselves: see `Store.last_seen_kept`. keep:
    the milliseconds for which it is kept when users were last seen, 0 for not at all. most_seen: of how many
    users in all shards it is kept; where no token proves who someone is, a client may be any number of users.
    leading: whether this node does what one node does for all. adding: whether members are added that records
    lack.
    """

    def __init__(
        self, store: PeopleStore, tasks: Spawner, *, direct: bool, keep: int, most_seen: int,
        leading: Callable[[], bool] = lambda: False, adding: bool = True,
    ) -> None:  # fmt: skip
        self._adding, self._most_seen = adding, most_seen
        self._store, self._tasks = store, tasks
        self._name = f"restored.{token_hex(4)}"  # of the tokens that members get who have none
        self.direct, self.keep, self._leading = direct, keep, leading
        self._loop = asyncio.get_running_loop()
        self._numbers = count(1)
        self._joining: defaultdict[int, list[tuple[Entry, str, asyncio.Future[Entered]]]] = defaultdict(list)
        self._confirming: list[Correction] = []
        self._joined = asyncio.Event()
        self._draining: dict[int, bool] = {}  # shards, and whether they are to be drained once more
        self._away: dict[int, dict[Entry, bool]] = {}  # by shard: what is to be written after the call for it
        self._verifying: dict[Entry, bool] = {}  # members, and whether they are to be compared once more
        self._suspects: dict[Entry, _Suspect] = {}
        self._audit_all = False
        self._wakeup = asyncio.Event()
        self._round = 0
        self.repaired = 0

    # Joins

    async def enter(self, entry: Entry, node: str) -> Joining:
        """Add the room to the user's record; return once the join may be sent, and confirm that after it.

        node: the name under which the join will be sent. Raises Unavailable.
        """
        token, at = self._new_token(node), self._loop.time()
        if self.direct:
            return Joining(entry, token, at, None)
        added: asyncio.Future[Entered] = self._loop.create_future()
        if not self._joining:
            self._loop.call_soon(self._send_joining)
        self._joining[self._store.keys.shard_of(entry.user_id)].append((entry, token, added))
        try:
            return Joining(entry, token, at, await added)
        except Unavailable:
            self.suspect(entry, token)
            raise

    def joined(self, joining: Joining, *, away: bool) -> None:
        """Have the room count, now that Redis took the join. away: whether the user is."""
        if joining.asked is None:
            return
        if self._loop.time() - joining.at >= SETTLE_TIME / 2:
            self._tasks.start_soon(self._add_late, joining)
            return
        if joining.asked is Entered.CONFIRM:
            self._confirming.append(Correction(joining.entry, away, joining.token))
            self._joined.set()
        if away or joining.asked is Entered.VERIFY:
            self.verify(joining.entry)

    async def confirm(self) -> None:
        """Confirm joins, all that have come meanwhile in one call for each shard, until cancelled."""
        while True:
            await self._joined.wait()
            await anyio.sleep(CONFIRM_DELAY)
            self._joined.clear()
            joins, self._confirming = self._confirming, []
            try:
                lacking = await self._store.correct(joins)
            except Unavailable:
                lacking = [join.entry for join in joins]
            for entry in lacking:  # it has departed, or was removed together with another join
                self.verify(entry)

    async def _add_late(self, joining: Joining) -> None:
        while True:
            try:
                await self._restore({joining.entry: joining.token})
            except Unavailable:
                await anyio.sleep(RETRY_DELAY)
            else:
                return

    async def _restore(self, members: Mapping[Entry, str]) -> None:
        """Add members to the records that lack them, by their tokens; they count if they are still there."""
        by_shard: defaultdict[int, list[tuple[Entry, str]]] = defaultdict(list)
        for entry, token in members.items():
            by_shard[self._store.keys.shard_of(entry.user_id)].append((entry, token))
        for shard, joins in by_shard.items():
            for start in range(0, len(joins), MAX_ROOMS):
                await self._store.enter(shard, joins[start : start + MAX_ROOMS])
        states = await self._store.memberships(members, "tokens")
        await self._store.correct(
            [
                Correction(entry, state.away, members[entry])
                for entry, state in states.items()
                if state.present
            ]
        )
        await self._exit(
            Exit(entry, members[entry], "")
            for entry, state in states.items()
            if not (state.present or state.suspended)
        )

    def refused(self, joining: Joining) -> None:
        """Take the room out of the record again, after a join that Redis refused."""
        if joining.asked is not None:
            self._tasks.start_soon(self._check_refused, joining)

    def unanswered(self, joining: Joining) -> None:
        """Take the room out of the record later, unless the join has reached Redis."""
        if joining.asked is not None:
            self.suspect(joining.entry, joining.token)

    def _new_token(self, node: str = "") -> str:
        return f"{node or self._name}-{next(self._numbers):x}"

    def _send_joining(self) -> None:
        joining, self._joining = self._joining, defaultdict(list)
        for shard, joins in joining.items():
            for start in range(0, len(joins), MAX_ROOMS):
                self._tasks.start_soon(self._send_shard, shard, joins[start : start + MAX_ROOMS])

    async def _send_shard(
        self, shard: int, joins: list[tuple[Entry, str, "asyncio.Future[Entered]"]]
    ) -> None:
        try:
            asked = await self._store.enter(shard, [(entry, token) for entry, token, _ in joins])
        except BaseException as error:
            for _, _, added in joins:
                _fail(added, error)
            if not isinstance(error, Unavailable):
                raise
        else:
            for (_, _, added), what in zip(joins, asked, strict=True):
                if not added.done():
                    added.set_result(what)

    async def _check_refused(self, joining: Joining) -> None:
        entry, token = joining.entry, joining.token
        try:
            if await self._is_excess(entry, token):
                await self._exit([Exit(entry, token, "")])
        except Unavailable:
            self.suspect(entry, token)

    # Departures, and changes of `away`

    def departed(self, shard: int) -> None:
        """Take the latest departures from rooms of a shard out of the records."""
        if shard in self._draining:
            self._draining[shard] = True
        else:
            self._draining[shard] = False
            self._tasks.start_soon(self._drain_soon, shard)

    def set_away(self, entry: Entry, *, away: bool) -> None:
        """Note whether a user is away in a room.

        One call for each shard is under way; of what changes meanwhile the last state is written after it. So
        however often members change, what waits is bounded by their number.
        """
        shard = self._store.keys.shard_of(entry.user_id)
        if shard in self._away:
            self._away[shard][entry] = away
        else:
            self._away[shard] = {entry: away}
            self._tasks.start_soon(self._write_away, shard)

    def verify(self, entry: Entry) -> None:
        """Compare what a record says of a room with the presence key, since either may have changed."""
        if entry in self._verifying:
            self._verifying[entry] = True
        else:
            self._verifying[entry] = False
            self._tasks.start_soon(self._verify_soon, entry)

    async def drain(self, shard: int) -> None:
        """Take the departures from rooms of a shard out of the records. Raises Unavailable."""
        cursor = "0"
        while True:
            cursor, exits = await self._store.exits(shard, cursor)
            if exits:
                await self._exit(read_exit(*one) for one in exits)
                await self._store.drop_exits(shard, exits)
            if cursor == "0":
                return

    async def _drain_soon(self, shard: int) -> None:
        try:
            while True:
                await self.drain(shard)
                if not self._draining[shard]:
                    return
                self._draining[shard] = False
        except Unavailable:
            return  # the leader does it, as soon as Redis answers
        finally:
            del self._draining[shard]

    async def _exit(self, exits: Iterable[Exit]) -> None:
        for entry, token in await self._store.exit(exits, keep=self.keep):
            self.suspect(entry, token)

    async def _write_away(self, shard: int) -> None:
        waiting = self._away[shard]
        try:
            while waiting:
                changes = dict(islice(waiting.items(), MAX_AWAY))
                for entry in changes:
                    del waiting[entry]
                try:
                    lacking = await self._store.correct(
                        [Correction(entry, away) for entry, away in changes.items()]
                    )
                except Unavailable:
                    lacking = list(changes)
                for entry in lacking:
                    self.verify(entry)
        finally:
            del self._away[shard]

    async def _verify_soon(self, entry: Entry) -> None:
        try:
            while True:
                self._verifying[entry] = False
                try:
                    await self._verify(entry)
                except Unavailable:
                    await anyio.sleep(RETRY_DELAY)
                    continue
                if not self._verifying[entry]:
                    return
        finally:
            del self._verifying[entry]

    async def _verify(self, entry: Entry) -> None:
        state = (await self._store.memberships([entry], "tokens"))[entry]
        if state.present and await self._store.correct([Correction(entry, state.away)]):
            await self._restore({entry: state.details[0] if state.details else self._new_token()})

    # Repairs

    async def serve(self) -> None:
        """Take in departures that were left over, and settle suspects, until cancelled."""
        first = True  # what the last node left when it stopped is taken in by the first to start
        while True:
            try:
                if first or self._leading():
                    await self.drain_all()
                    first = False
                await self._settle_suspects()
                if self._audit_all:
                    await self.audit_all()
            except Unavailable:
                await anyio.sleep(RETRY_DELAY)
            with anyio.move_on_after(POLL_INTERVAL):
                await self._wakeup.wait()
            self._wakeup.clear()

    async def drain_all(self) -> None:
        """Take the departures from all rooms out of the records. Raises Unavailable."""
        shards = await self._store.shards_with_exits() if self.direct else self._store.keys.shards
        await asyncio.gather(*map(self.drain, shards))

    def suspect(self, entry: Entry, token: str) -> None:
        """Remove a room from a record later, unless the user is there, or another join has begun."""
        known = self._suspects.get(entry)
        if known is None or known.token != token:
            self._suspects[entry] = _Suspect(token, self._loop.time())

    def trigger_audit(self) -> None:
        """Audit all users as soon as possible."""
        self._audit_all = True
        self._wakeup.set()

    async def audit_all(self) -> None:
        """Audit the users of all shards. Raises Unavailable."""
        self._audit_all = False
        try:
            for shard in self._store.keys.shards:
                await self.audit(shard)
        except Unavailable:
            self._audit_all = True
            raise

    async def audit_part(self) -> None:
        """Audit the part of the users that is due, as one of the regular rounds. Raises Unavailable."""
        self._round += 1
        for shard in self._store.keys.shards[self._round % AUDIT_PARTS :: AUDIT_PARTS]:
            await self.audit(shard)

    async def audit(self, shard: int) -> None:
        """Compare the records of a shard with the presence keys, and its members with the records.

        Raises Unavailable.
        """
        if self._adding:
            most = -(-self._most_seen // len(self._store.keys.shards))
            await self._store.forget_old(shard, self.keep, most)
        await self._audit_records(shard)
        if self._adding:
            await self._audit_members(shard)

    async def _audit_members(self, shard: int) -> None:
        cursor = "0"
        while True:
            cursor, sizes = await self._store.rooms(shard, cursor)
            waiting = [(room, "0") for room in sizes]
            while waiting:
                page, members = list[tuple[str, str]](), 0
                while waiting and (not page or members + sizes[waiting[-1][0]] <= MAX_AUDITED):
                    members += sizes[waiting[-1][0]]
                    page.append(waiting.pop())
                more, tokens = await self._store.tokens(shard, page, new_token=self._new_token())
                waiting += more
                missing = await self._store.missing(tokens) if tokens else []
                if missing:
                    await self._restore({entry: tokens[entry] for entry in missing})
                    self.repaired += len(missing)
            if cursor == "0":
                return

    async def _audit_records(self, shard: int) -> None:
        cursor = "0"
        while True:
            cursor, records = await self._store.page(shard, cursor)
            entries = [Entry(room, user) for user, record in records.items() for room in record.rooms]
            states = await self._store.memberships(entries, "tokens") if entries else {}
            corrections: list[Correction] = []
            for entry, state in states.items():
                record = records[entry.user_id]
                token = record.rooms[entry.room_id]
                if not (state.present or state.suspended) or token not in state.details:
                    self.suspect(entry, token)
                elif state.present and (
                    entry.room_id in record.joining or state.away != (entry.room_id in record.away)
                ):
                    corrections.append(Correction(entry, state.away, token))
            if corrections:
                await self._store.correct(corrections)
            if cursor == "0":
                return

    async def _settle_suspects(self) -> None:
        before = self._loop.time() - SETTLE_TIME
        due = {entry: one.token for entry, one in self._suspects.items() if one.since <= before}
        if not due:
            return
        records = await self._store.records({entry.user_id for entry in due})
        still = [
            entry for entry, token in due.items() if records[entry.user_id].rooms.get(entry.room_id) == token
        ]
        states = await self._store.memberships(still, "tokens") if still else {}
        absent, other = list[Exit](), list[Correction]()
        for entry, state in states.items():
            if not (state.present or state.suspended):
                absent.append(Exit(entry, due[entry], ""))
            elif state.present and (
                due[entry] not in state.details or entry.room_id in records[entry.user_id].joining
            ):
                token = state.details[0] if state.details else ""
                other.append(Correction(entry, state.away, due[entry], token))
        if absent:
            await self._exit(absent)
        if other:
            await self._store.correct(other)
        self.repaired += len(absent) + len(other)
        for entry, token in due.items():
            if self._suspects[entry].token == token:
                del self._suspects[entry]

    async def _is_excess(self, entry: Entry, token: str) -> bool:
        """Whether a room is to be removed, after a refused join; a token before it is restored."""
        state = (await self._store.memberships([entry], "tokens"))[entry]
        if not (state.present or state.suspended):
            return True
        if state.present:
            present = state.details[0] if state.details else ""
            await self._store.correct([Correction(entry, state.away, token, present)])
        return False


def _fail(added: "asyncio.Future[Entered]", error: BaseException) -> None:
    if added.done():
        return
    if isinstance(error, Exception):
        added.set_exception(error)
    else:
        added.cancel()
