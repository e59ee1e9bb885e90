"""People in the chaos suite: who watches them, and the rules that hold for what watchers were sent.

All users of a schedule are watched by clients (`people:watch`), which return when they lose their
connection, and by a back end (`watch_users`). The log of changes for webhooks exists, so that it has each
going online and offline. Where clients have tokens, one asks for all users whose token lets it watch no one.

Within a time after the faults, and again after all clients have left (`not_converged`):

1. people: each watcher has the status of each user that the presence keys say, and the back end has the
   rooms, too.
2. index: the records name exactly the rooms of the presence keys, all confirmed, and where the user is away;
   the sets name those who have a record; no departure waits to be taken in.

Of the whole record (`past`):

3. once: no change that a client was sent repeats the last one. The log of changes has online and offline by
   turns, as the keys say at last, and no fewer times than the user was a member for a while after a while
   without. Exceptions: Redis lost data; a departure has yet to be taken in; and of a join whose node died
   before it could confirm it, the log knows nothing until another node has found it.
4. false: a client is not sent that a user is offline whose membership was acknowledged before and after.
   Exceptions: Redis had just lost data, or a node of the user was frozen or cut off.
5. seen: a user who is offline was last seen at the last activity that Redis stored, within a heartbeat.
   Exception: Redis lost data.
6. entitled: no client is sent rooms, as no token has the claim `where`, and one that may watch no one is sent
   of each user what it would be of an unknown one.
"""

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import anyio
import msgspec

from reactor.errors import ReactorError
from reactor.presence.api import PersonInfo, Presence
from reactor.settings import Settings
from tests.chaos.client import HEARTBEAT_EVERY, NodePicker
from tests.chaos.history import Finding, History, Membership, NodeLife, now_ms
from tests.chaos.state import Departure, State
from tests.chaos.websocket import WebSocket

KNOWN_AFTER = 2000
"""Milliseconds for which a membership has existed when its user surely counts as online."""
REREAD = 3000
"""Milliseconds after a loss of data until nodes read again the users that they follow."""
NOTICED = 5000
"""Milliseconds that a user has to be online, or offline, until the log of changes surely has it."""
CONFIRMED_AFTER = 2500
"""Milliseconds after the reply to a join until its node, if it is busy, has confirmed it in the index."""
HEARTBEAT = int(HEARTBEAT_EVERY * 1000)
SLACK = 400
"""Milliseconds by which a heartbeat is late on a busy machine."""
RETRY = 0.2

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class WatchingClient:
    """A client that is in no room and watches users. It connects again whenever it must."""

    def __init__(
        self, name: str, users: list[str], history: History, nodes: NodePicker, seed: int,
        headers: dict[str, str] | None = None, *, entitled: bool = True,
    ) -> None:  # fmt: skip
        self._headers, self._entitled = headers or {}, entitled
        self.name, self._users, self._history, self._nodes = name, users, history, nodes
        self._chance = random.Random(seed)
        self._websocket: WebSocket | None = None
        self._node: NodeLife | None = None
        self._closed = asyncio.Event()
        self.people: dict[str, dict[str, Any]] = {}
        self.offline: list[tuple[int, str]] = []  # when it was sent that a user is offline
        self.recent: deque[str] = deque(maxlen=200)

    @property
    def watching(self) -> bool:
        """Whether it has been sent the state of all users, and its connection is open."""
        alive = self._websocket is not None and self._websocket.open
        return alive and self._node is not None and self._node.ended_at is None and bool(self.people)

    async def live(self) -> None:
        """Watch until cancelled."""
        while True:
            with suppress(OSError):
                await self._watch()
            await asyncio.sleep(self._chance.uniform(0.05, RETRY))

    async def _watch(self) -> None:
        found = self._nodes.pick(self._chance)
        if found is None:
            return
        self._node, port = found
        self._closed, self.people = asyncio.Event(), {}
        self._websocket = await WebSocket.connect(
            port, self._received, lambda _code: self._closed.set(), self._headers
        )
        self._ask()
        while not self._closed.is_set() and self._node.ended_at is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), 0.1)
        self.discard()

    def _ask(self) -> None:
        if self._websocket is not None:
            self._websocket.send(_encode({"type": "people:watch", "id": 1, "userIds": self._users}))

    def _received(self, payload: bytes) -> None:
        message = _decode(payload)
        self.recent.append(f"{now_ms()} {self.name} < {payload[:3000].decode(errors='replace')}")
        match message["type"]:
            case "people:state":
                self.people = {person["userId"]: person for person in message["people"]}
                self._check_rights(message["people"])
            case "people:diff":
                for person in message["changed"]:
                    self._changed(person)
                self._check_rights(message["changed"])
            case "error":  # Redis is away
                asyncio.get_running_loop().call_later(RETRY, self._ask)

    def _check_rights(self, people: list[dict[str, Any]]) -> None:
        """Rule 6."""
        for person in people:
            unknown = {"userId": person["userId"], "status": "offline"}
            if "rooms" in person or not (self._entitled or person == unknown):
                self._history.violation("people", f"{self.name} was sent more than it may know: {person}")

    def _changed(self, person: dict[str, Any]) -> None:
        user = person["userId"]
        if self.people.get(user) == person:
            self._history.violation("people", f"{self.name} was sent twice: {person}", *self.about(user))
        self.people[user] = person
        if person["status"] == "offline":
            self.offline.append((now_ms(), user))

    def about(self, user: str) -> tuple[str, ...]:
        """The last messages about a user, as evidence; lists of all are left out."""
        return tuple(text for text in self.recent if f'"{user}"' in text and "people:state" not in text)[-8:]

    def discard(self) -> None:
        """Abort the connection."""
        if self._websocket is not None:
            self._websocket.abort()


class WatchingBackEnd:
    """A back end that watches users by `watch_users`, and begins again when that ends with an error."""

    name = "the back end"

    def __init__(self, url: str, users: list[str], sweep: float) -> None:
        self._settings = Settings(redis_url=url, sweep_interval=sweep)
        self._users = users
        self.people: dict[str, PersonInfo] = {}
        self.recent: deque[str] = deque(maxlen=2000)

    @property
    def watching(self) -> bool:
        """Whether it knows all users."""
        return len(self.people) == len(self._users)

    async def live(self) -> None:
        """Watch until cancelled."""
        while True:
            self.people = {}
            with suppress(ReactorError):
                async with Presence.open(self._settings) as presence:
                    async for person in presence.watch_users(self._users):
                        self.people[person.user_id] = person
                        self.recent.append(f"{now_ms()} {self.name} < {person}")
            await anyio.sleep(RETRY)

    def about(self, user: str) -> tuple[str, ...]:
        """The last changes of a user, as evidence."""
        return tuple(text for text in self.recent if f"'{user}'" in text)[-8:]

    def discard(self) -> None:
        """Do nothing: the connections end with `live`."""


class Watchers:
    """All who watch the users of a schedule."""

    def __init__(
        self, users: Iterable[str], history: History, nodes: NodePicker, url: str, *, sweep: float,
        seed: int, headers: Callable[..., dict[str, str]] = lambda _user, **_claims: {},
    ) -> None:  # fmt: skip
        """headers: gives the headers of a handshake by the user and claims of the token, or none."""
        self.users = sorted(set(users))
        self.clients = [
            WatchingClient(
                f"watcher{number}", self.users, history, nodes, seed + number, headers(f"watcher{number}")
            )
            for number in range(2)
        ]
        of_unentitled = headers("unentitled", people=[])
        self.unentitled = [
            WatchingClient("unentitled", self.users, history, nodes, seed - 1, of_unentitled, entitled=False)
            for _ in range(bool(of_unentitled))
        ]
        self.back_end = WatchingBackEnd(url, self.users, sweep)
        self._history = history
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(client.live()) for client in (*self.clients, *self.unentitled)]
        self._tasks.append(asyncio.create_task(self.back_end.live()))

    async def stop(self) -> None:
        """End all, and wait for that."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in (*self.clients, *self.unentitled):
            client.discard()

    def not_converged(self, state: State) -> list[Finding]:
        """Rules 1 and 2: the differences that remain."""
        true = {user: _true_person(user, state) for user in self.users}
        watchers: list[WatchingClient | WatchingBackEnd] = [*self.clients, *self.unentitled, self.back_end]
        found = [
            Finding("people", f"{watcher.name} watches no user", tuple(watcher.recent)[-3:])
            for watcher in watchers
            if not watcher.watching
        ]
        for client in self.clients:
            found += [
                Finding(
                    "people", f"{client.name} has {shown} for {user}, who is {true[user]}", client.about(user)
                )
                for user, person in client.people.items()
                if (shown := person["status"]) != true[user][0]
            ]
        for user, info in self.back_end.people.items():
            if (info.status, info.rooms) != true[user]:
                shown, evidence = f"{info.status} in {info.rooms}", self.back_end.about(user)
                found.append(
                    Finding("people", f"a back end has {user} {shown}, and not {true[user]}", evidence)
                )
        return found + _index_differs(true, state)

    def past(self, state: State) -> list[Finding]:
        """Rules 3 to 5."""
        by_user: defaultdict[str, list[Membership]] = defaultdict(list)
        for membership in self._history.memberships:
            by_user[membership.user].append(membership)
        return [*self._false(by_user), *self._repeated(state), *self._seen(by_user, state)]

    def _false(self, by_user: Mapping[str, list[Membership]]) -> list[Finding]:
        history = self._history
        found = []
        for client in self.clients:
            for at, user in client.offline:
                memberships = by_user.get(user, [])
                there = [
                    one for one in memberships
                    if one.since < at - KNOWN_AFTER and any(beat > at + 50 for beat in one.acked)
                ]  # fmt: skip
                impaired = any(
                    begun < at and ended > at - history.grace - 3 * history.lease - REREAD
                    for one in memberships
                    for begun, ended in one.node.impaired
                )
                if there and not impaired and not history.lost(at - 3 * history.lease - REREAD, at):
                    evidence = (*map(str, there), *client.about(user))
                    found.append(
                        Finding("people", f"{client.name} was sent that {user} is offline", evidence)
                    )
        return found

    def _repeated(self, state: State) -> list[Finding]:
        if self._history.losses:
            return []
        by_user: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for user, status, at in state.went:
            by_user[user].append((status, at))
        found = [
            Finding("people", f"{user} went {status} twice", tuple(map(str, changes)))
            for user, changes in by_user.items()
            for place, (status, _) in enumerate(changes)
            if status != ("online", "offline")[place % 2]
        ]
        leaving = {unquote(member.partition(":user:")[2]) for member in state.exits}
        unconfirmed = _unconfirmed(self._history)
        for user in self.users:
            if user in leaving:
                continue
            times, changes = _times_online(user, state), by_user[user]
            least, online = _noticed(times, now_ms()), [status for status, _ in changes].count("online")
            if user in unconfirmed:
                least = 0
            there = _true_person(user, state)[0] != "offline"
            if least > online or there != (len(changes) % 2 == 1):
                text = f"{user}, {'' if there else 'not '}online now, went online {online} times by the log"
                found.append(Finding("people", text, (*map(str, times), *map(str, changes))))
        return found

    def _seen(self, by_user: Mapping[str, list[Membership]], state: State) -> list[Finding]:
        history = self._history
        found = []
        asked: defaultdict[str, int] = defaultdict(int)
        for requests in (history.joins, history.leaves):
            for (_, user), times in requests.items():
                asked[user] = max(asked[user], *times)
        for user in self.users:
            if _true_person(user, state)[0] != "offline":
                continue
            memberships = by_user.get(user, [])
            departures = [one for one in state.departures if one.user == user]
            left = [one.at for one in departures if one.reason == "left"]
            stored = [at for one in memberships for at in (*one.acked, one.joined_at or 0)]
            sent = [at for one in memberships for at in one.heartbeats]
            last = max([*left, *stored], default=0)
            if not last or history.lost(last - REREAD):
                continue
            # A request without a reply may have reached Redis late: the record is checked by itself.
            recorded = [one.last_active for one in departures]
            seen, latest = state.seen.get(user, 0), max([last, *sent, *recorded, asked[user]])
            missed = max((_missed_activity(history, one) for one in departures), default=0)
            if not last - missed - HEARTBEAT - SLACK <= seen <= latest + HEARTBEAT + SLACK:
                text = f"{user} was last seen at {seen}, and was last active at {last} ({latest})"
                found.append(Finding("people", text, tuple(map(str, memberships[-4:]))))
        return found


def _missed_activity(history: History, departure: Departure) -> int:
    """Up to how many milliseconds before the last activity a departure may say that it was.

    The presence key holds the last activity and vanishes at its expiry. The scan at the stored deadline
    copies it before: a member that has sent heartbeats is alive then. A scan that a stall of its node, or its
    death, delays beyond the expiry finds nothing to copy, and the departure has what the scan before copied.
    So it is with a stall of Redis, after which expiry is suspended.
    """
    due = departure.last_active + history.ttl_of[departure.room]
    nodes = history.nodes
    stalls = [stall for node in nodes for stall in node.impaired]
    stalls += [[node.ended_at, node.ended_at + history.lease] for node in nodes if node.ended_at is not None]
    stalls += [[at - history.lease, at] for node in nodes for at in node.suspensions]
    late = any(begun < departure.at and ended > due - 3 * history.lease for begun, ended in stalls)
    return history.ttl_of[departure.room] if late and departure.reason != "left" else 0


def _unconfirmed(history: History) -> set[str]:
    """The users of whom a node took a join when it died, so that it may not have confirmed it."""
    died = {user for (_, user), nodes in history.unanswered.items() if any(node.ended_at for node in nodes)}
    return died | {
        one.user
        for one in history.memberships
        if one.node.ended_at is not None and one.node.ended_at - one.since < CONFIRMED_AFTER
    }


def _times_online(user: str, state: State) -> list[tuple[int, int]]:
    """From when until when a user was a member of some room, in order; the future where it is one now."""
    stays = [(one.joined_at, one.at) for one in state.departures if one.user == user]
    stays += [
        (int(members[user]["joinedAt"]), 1 << 60) for members in state.members.values() if user in members
    ]
    times: list[tuple[int, int]] = []
    for begun, ended in sorted(stays):
        if times and begun <= times[-1][1]:
            times[-1] = times[-1][0], max(ended, times[-1][1])
        else:
            times.append((begun, ended))
    return times


def _noticed(times: list[tuple[int, int]], now: int) -> int:
    """How many of these times were long enough to be noticed, and as far from the one before that was."""
    number, last = 0, 0
    for begun, ended in times:
        if min(ended, now) - begun >= NOTICED and begun - last >= NOTICED:
            number += 1
        last = ended
    return number


def _true_person(user: str, state: State) -> tuple[str, list[str]]:
    """A user's status and rooms, as the presence keys say."""
    rooms = {room: members[user] for room, members in state.members.items() if user in members}
    if not rooms:
        return "offline", []
    away = all("away" in fields for fields in rooms.values())
    return "away" if away else "online", sorted(rooms)


def _index_differs(true: dict[str, tuple[str, list[str]]], state: State) -> list[Finding]:
    found = []
    for user in sorted(true.keys() | state.records.keys()):
        status, rooms = true.get(user, ("offline", []))
        record = state.records.get(user, {})
        named = {room: value[:1] for room, value in record.items() if not room.startswith(":")}
        away = {room for room, members in state.members.items() if "away" in members.get(user, {})}
        expected = {room: "~" if room in away else "" for room in rooms}
        marks = {room: mark if mark in "~?" else "" for room, mark in named.items()}
        if marks != expected or (":s" in record) != bool(rooms):
            found.append(Finding("index", f"the record of {user} is {record}, who is {status} in {rooms}"))
        if (user in state.on_record) != bool(record):
            found.append(Finding("index", f"{user} is {user in state.on_record} in the set, with {record}"))
        if rooms and user in state.seen:
            found.append(Finding("index", f"{user} is online, and on record as last seen"))
    if state.exits:
        found.append(Finding("index", f"departures wait to be taken in: {sorted(state.exits.items())[:5]}"))
    return found
