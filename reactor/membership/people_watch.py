"""The people whom clients watch: who watches whom, and what each is sent.

A change is sent at once, further ones within `diff_window` together, or within a longer time where many
connections are sent many users: so what people do takes a bounded part of the node's time, however many
watch them. All who watch a user have been sent the same state of that user, the last one in `_sent`, or are
sent the next one; a client that reads too slowly is sent the present state once it reads again.

Whom a client may not watch it sees as an unknown user. In the place of such a user a name is followed that no
user can have (`placeholder_of`), by the same calls of Redis: neither the answer, nor its time, nor a limit
says which of the two it was. Nothing of the user is read.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable

import anyio

from reactor.errors import Unavailable
from reactor.gateway.address_share import AddressShare
from reactor.gateway.connection import Connection
from reactor.gateway.cost import PERSON_DROPPED, PERSON_READ, PERSON_ROOM, change_price
from reactor.gateway.fanout import broadcast
from reactor.gateway.people_rights import PeopleHookFailed, PeopleRights, identity_of
from reactor.presence.people_feed import FollowedPerson, PeopleFeed
from reactor.protocol import intents, messages
from reactor.protocol.identity import Identity
from reactor.settings import Settings

Charge = Callable[[Connection, float], None]

PAGE = 100
"""Users of one request that are followed at a time; then those of other requests have their turn."""
MAX_AT_A_TIME = 4
"""Requests that follow users at a time: each takes a millisecond of the node's time for a page."""
FOLLOW_TIMEOUT = 10.0
"""Seconds that a request may wait for its users to be followed."""
MAX_SENT = 2000
"""Users in the messages that are sent at a time, summed over the connections; the others follow."""
SECONDS_PER_CONNECTION, SECONDS_PER_PERSON = 50e-6, 20e-6
"""What each connection, and each user that one is sent, adds to the time until more is sent: about five times
what they take of the node's time."""
BYTES_PER_SECOND = 100_000_000
"""Bytes that are sent to all connections together, likewise: a user in many rooms takes 26 KB."""


_NO_RIGHTS = "the application did not say whom this client may watch: try again in a moment"
_PLACEHOLDER = "\0"  # no user id holds a control character


def placeholder_of(user_id: str) -> str:
    """Return the name that is followed in the place of a user whom a client may not watch."""
    return _PLACEHOLDER + user_id


class _Watch:
    """What one connection watches.

    followed: the users, and the placeholders of those whom it may not watch. lost: users whom it may watch no
    more since it has another token. identity: by which that was decided. where: whether it learns their
    rooms. missed: those of whom it was not sent the last change.
    """

    __slots__ = ("followed", "identity", "lost", "missed", "where")

    def __init__(self, identity: Identity | None, *, where: bool) -> None:
        self.identity, self.where = identity, where
        self.followed: set[str] = set()
        self.lost: set[str] = set()
        self.missed: set[str] = set()

    @property
    def users(self) -> set[str]:
        """Return the users whom it has asked for."""
        return {name.removeprefix(_PLACEHOLDER) for name in self.followed} | self.lost

    def names_of(self, users: Iterable[str]) -> set[str]:
        """Return what is followed for these users."""
        return {name for user in users for name in (user, placeholder_of(user)) if name in self.followed}


class PeopleWatches:
    """The watches of one node. charge: called with what a request costs, in units of `gateway/cost.py`."""

    def __init__(self, settings: Settings, feed: PeopleFeed, *, charge: Charge) -> None:
        self._feed, self._charge = feed, charge
        self._rights = PeopleRights(settings)
        self._max_people, self._window = settings.max_people, settings.diff_window
        self._loop = asyncio.get_running_loop()
        self._watches: dict[Connection, _Watch] = {}
        self._in_order: defaultdict[Connection, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._watchers: defaultdict[str, set[Connection]] = defaultdict(set)
        self._sent: dict[str, messages.Person] = {}  # by user, with rooms
        self._changed: dict[str, None] = {}  # in the order in which they are sent
        # Of these, those that single connections have been sent already, as they were then.
        self._sent_newer: defaultdict[str, dict[Connection, messages.Person]] = defaultdict(dict)
        self._share = AddressShare(settings.max_people)
        self._turn = asyncio.Semaphore(MAX_AT_A_TIME)
        self._timer: asyncio.Handle | None = None
        self._window_ends = 0.0
        self.sent = 0

    def __len__(self) -> int:
        return len(self._watchers)

    # Requests

    async def watch(self, connection: Connection, intent: intents.FollowPeople) -> None:
        """Answer with the state of users, and send their changes from here on. Raises Unavailable.

        The requests of a connection are carried out one after the other: so it makes the node follow no more
        users at a time than it may watch, and what it watches at the end is what it asked for last.
        """
        if connection.session.closed:
            return
        self._charge(connection, PERSON_READ * len(intent.user_ids))
        async with self._in_order[connection]:
            await self._watch(connection, intent)

    async def unwatch(self, connection: Connection, intent: intents.UnfollowPeople) -> None:
        """Send no more of users, or of all, once the requests before this one are carried out."""
        if connection in self._in_order:
            async with self._in_order[connection]:
                self._unwatch(connection, intent.user_ids)
        connection.send(messages.PeopleUnwatched(intent.id))

    def forget(self, connection: Connection) -> None:
        """Note that a connection is closed."""
        self._in_order.pop(connection, None)
        watch = self._watches.pop(connection, None)
        if watch is not None:
            self._unfollow(connection, watch, set(watch.followed))

    def catch_up(self, connection: Connection) -> None:
        """Send a connection that reads again what it missed."""
        watch = self._watches.get(connection)
        if watch is not None and watch.missed:
            missed, watch.missed = sorted(watch.missed), set()
            self._note_newer(connection, missed)
            self._send([connection], missed, where=watch.where)

    # Changes

    def on_changed(self, person: FollowedPerson) -> None:
        """Take in that a user has changed; it is sent at the end of the window, if one is open."""
        if person.user_id not in self._watchers:
            return
        self._changed[person.user_id] = None
        if self._timer is None:
            self._timer = self._loop.call_at(max(self._window_ends, self._loop.time()), self._send_changes)

    def stop(self) -> None:
        """Discard what waits to be sent."""
        self._changed.clear()
        self._close_window()

    # Private methods

    async def _watch(self, connection: Connection, intent: intents.FollowPeople) -> None:
        user_ids = intent.user_ids
        if self._refused(connection, intent):
            return
        identity = identity_of(connection)
        try:
            allowed = await self._rights.allowed(connection, user_ids)
        except PeopleHookFailed:
            connection.send(messages.ErrorMessage("unavailable", _NO_RIGHTS, intent.id))
            return
        names = {user: user if user in allowed else placeholder_of(user) for user in user_ids}
        wanted = set(names.values())
        if self._are_too_many(connection, intent, wanted):
            return
        try:
            await self._follow(wanted)
        except BaseException:
            self._share.release(wanted - self._watchers.keys())
            raise
        # Asked again: other requests may have been carried out, or have failed, meanwhile.
        if (
            connection.session.closed
            or self._refused(connection, intent)
            or self._are_too_many(connection, intent, wanted)
        ):
            self._feed.unfollow(wanted)
            self._share.release(wanted - self._watchers.keys())
            return
        self._note_newer(connection, wanted)
        watch = self._watch_of(connection, identity)
        self._feed.unfollow(wanted & watch.followed)
        self._unfollow(connection, watch, watch.names_of(user_ids) - wanted)
        watch.followed |= wanted
        watch.lost.difference_update(user_ids)
        watch.missed -= wanted
        for name in wanted:
            self._watchers[name].add(connection)
            self._sent.setdefault(name, self._person(name, where=True))
        people = [self._person(names[user], where=watch.where) for user in user_ids]
        size = connection.send(messages.PeopleState(people, intent.id))
        found = filter(None, map(self._feed.get, wanted))
        rooms = sum(len(person.rooms) for person in found)
        self._charge(connection, PERSON_ROOM * rooms + change_price(size, 1))

    def _unwatch(self, connection: Connection, user_ids: Iterable[str] | None) -> None:
        watch = self._watches.get(connection)
        if watch is None:
            return
        users = set(user_ids) if user_ids is not None else watch.users
        self._charge(connection, PERSON_DROPPED * len(users))
        watch.lost -= users
        self._unfollow(connection, watch, watch.names_of(users))
        if not watch.users:
            del self._watches[connection]

    async def _follow(self, users: set[str]) -> None:
        """Follow users, in turn with other requests. Raises Unavailable: none of them is followed."""
        waiting, followed = list(users), list[str]()
        try:
            with anyio.fail_after(FOLLOW_TIMEOUT):
                while waiting:
                    async with self._turn:
                        await self._feed.follow(waiting[:PAGE])
                    followed += waiting[:PAGE]
                    del waiting[:PAGE]
        except BaseException as error:
            self._feed.unfollow(followed)
            if isinstance(error, TimeoutError):
                raise Unavailable("too many users are to be followed") from None
            raise

    def _note_newer(self, connection: Connection, users: Iterable[str]) -> None:
        """Note that a connection is sent users as they are, also those whose change waits for the others."""
        for user_id in users:
            if user_id in self._changed:
                self._sent_newer[user_id][connection] = self._person(user_id, where=True)

    def _refused(self, connection: Connection, intent: intents.FollowPeople) -> bool:
        """Answer a request of a connection that would watch too many; whether this is one."""
        watch = self._watches.get(connection)
        known = watch.users if watch is not None else frozenset[str]()
        if len(known.union(intent.user_ids)) <= self._max_people:
            return False
        sentence = f"a connection may watch {self._max_people} people: unwatch some first"
        connection.send(messages.ErrorMessage("too_many_people", sentence, intent.id))
        return True

    def _are_too_many(self, connection: Connection, intent: intents.FollowPeople, names: set[str]) -> bool:
        """Count names for the client's address, or answer that it has too many; whether it has."""
        if self._share.take(connection, names):
            return False
        sentence = "the clients of this address watch too many people: unwatch some first"
        connection.send(messages.ErrorMessage("too_many_people", sentence, intent.id))
        return True

    def _watch_of(self, connection: Connection, identity: Identity | None) -> _Watch:
        watch = self._watches.get(connection)
        where = self._rights.may_learn_rooms(connection)
        if watch is None:
            watch = self._watches[connection] = _Watch(identity, where=where)
        elif watch.identity is not identity:
            self._apply_new_token(connection, watch)
        return watch

    def _unfollow(self, connection: Connection, watch: _Watch, names: set[str]) -> None:
        watch.followed -= names
        watch.missed -= names
        for name in names:
            watchers = self._watchers[name]
            watchers.discard(connection)
            if name in self._sent_newer:
                self._sent_newer[name].pop(connection, None)
            if not watchers:
                del self._watchers[name]
                self._share.release((name,))
                self._sent.pop(name, None)
                self._changed.pop(name, None)
                self._sent_newer.pop(name, None)
        self._feed.unfollow(names)

    def _person(self, name: str, *, where: bool) -> messages.Person:
        """Return a user as clients see it; of a placeholder, as one who is unknown. where: with the rooms."""
        person = self._feed.get(name)
        if person is None or name.startswith(_PLACEHOLDER):
            return FollowedPerson(name.removeprefix(_PLACEHOLDER)).person(where=where)
        return person.person(where=where)

    def _send_changes(self) -> None:
        """Send each watcher the users who are not as they were sent last: MAX_SENT now, the rest later."""
        self._close_window()
        for_all, sent = self._take_changes()
        groups: dict[tuple[bool, tuple[str, ...]], list[Connection]] = defaultdict(list)
        for connection, users in for_all.items():
            watch = self._watches[connection]
            if connection.lags:
                watch.missed.update(users)
            elif watch.identity is not identity_of(connection):
                self._apply_new_token(connection, watch)
            else:
                groups[watch.where, tuple(sorted(users))].append(connection)
        size = sum(
            self._send(connections, same, where=where) for (where, same), connections in groups.items()
        )
        if for_all:
            seconds = len(for_all) * SECONDS_PER_CONNECTION + sent * SECONDS_PER_PERSON
            seconds = max(self._window, seconds, size / BYTES_PER_SECOND)
            self._window_ends = self._loop.time() + seconds
        if self._changed:
            self._timer = self._loop.call_at(max(self._window_ends, self._loop.time()), self._send_changes)

    def _take_changes(self) -> tuple[dict[Connection, list[str]], int]:
        """Return the users to send to each watcher, and their sum: about MAX_SENT at most."""
        for_all: dict[Connection, list[str]] = defaultdict(list)
        sent = 0
        while self._changed and sent < MAX_SENT:
            user_id = next(iter(self._changed))
            del self._changed[user_id]
            now, before = self._person(user_id, where=True), self._sent.get(user_id)
            newer = self._sent_newer.pop(user_id, {})
            if now == before and not newer:
                continue
            self._sent[user_id] = now
            sent += len(self._watchers[user_id])
            differs = {where: _differs(now, before, where=where) for where in (False, True)}
            for connection in self._watchers[user_id]:
                where = self._watches[connection].where
                if _differs(now, newer[connection], where=where) if connection in newer else differs[where]:
                    for_all[connection].append(user_id)
        return for_all, sent

    def _apply_new_token(self, connection: Connection, watch: _Watch) -> None:
        """Decide anew whom a connection may watch, since it has another token: it may be fewer."""
        watch.identity, watch.where = identity_of(connection), self._rights.may_learn_rooms(connection)
        lost = {
            name
            for name in watch.followed
            if not (name.startswith(_PLACEHOLDER) or self._rights.may_still_watch(connection, name))
        }
        self._unfollow(connection, watch, lost)
        watch.lost |= lost
        self._note_newer(connection, watch.followed)
        names = sorted(watch.lost | watch.followed, key=lambda name: name.removeprefix(_PLACEHOLDER))
        connection.send(messages.PeopleDiff([self._person(name, where=watch.where) for name in names]))

    def _close_window(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self, connections: list[Connection], users: Iterable[str], *, where: bool) -> int:
        """Send users to connections; return the bytes, summed over these."""
        self.sent += len(connections)
        people = [self._person(user, where=where) for user in users]
        return len(connections) * broadcast(messages.PeopleDiff(people), connections)


def _differs(now: messages.Person, before: messages.Person | None, *, where: bool) -> bool:
    """Whether a connection is to be sent a user whom it was sent before. where: it learns the rooms, too."""
    if before is None or where:
        return now != before
    return (now.status, now.last_seen) != (before.status, before.last_seen)


class NoPeople:
    """In the place of `PeopleWatches` where the setting `people` is off."""

    sent = 0
    _SENTENCE = "this server keeps no index of people: its setting people is off"

    async def watch(
        self, connection: Connection, intent: intents.FollowPeople | intents.UnfollowPeople
    ) -> None:
        """Refuse the request."""
        connection.send(messages.ErrorMessage("forbidden", self._SENTENCE, intent.id))

    unwatch = watch

    def __len__(self) -> int:
        return 0

    def forget(self, connection: Connection) -> None:
        """Do nothing."""

    def catch_up(self, connection: Connection) -> None:
        """Do nothing."""
