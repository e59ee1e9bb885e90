"""All scripts against a plain model: members, counts, departures and reasons agree after every step.

So do people: the answer about each user, which the index and the presence keys give together, the record of
the index, which never names too little, and what a watcher and the log for webhooks were sent, once each. The
views of rooms are those of observers: they are in no room, and are sent each diff.
"""

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Coroutine
from contextlib import closing
from itertools import count
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from reactor.presence.bans import Bans
from reactor.presence.changes import LOG_TTL_MS, PersonLogged
from reactor.presence.keys import Entry, ExpiredKeys, parse_suffix, unescape
from reactor.presence.people import (
    Correction,
    Entered,
    Exit,
    PeopleStore,
    PersonChange,
    decode_person_change,
    read_exit,
)
from reactor.presence.people_feed import FollowedPerson
from reactor.presence.replies import JoinRefused
from reactor.presence.rows import decode_diff
from reactor.protocol.intents import FormerJoining
from reactor.protocol.room import DiffResult, RoomView
from tests.redis.presence.consistent import assert_consistent
from tests.support.keyspace import SHARDS, departures_stream, keyspace, presence_key, shard_of
from tests.support.model import PresenceModel, node_of
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, Direct, done

# Time passes in whole seconds: at half ones no deadline is ever met to the millisecond.
TTL, GRACE, AWAY_GRACE = 60_500, 10_500, 30_500
ROOMS = ["lobby", "a:user:b{c}*"]
USERS = ["ann", "bob", "%3A é"]
CONNECTIONS = ["n1.1", "n1.2", "n2.1", "n2.2", "n3.1"]

KEEP = 86_400_000
T = TypeVar("T")

EXAMPLES = int(os.environ.get("REACTOR_TEST_EXAMPLES", "30"))

room, user, connection = st.sampled_from(ROOMS), st.sampled_from(USERS), st.sampled_from(CONNECTIONS)


class Machine(RuleBasedStateMachine):
    direct: Direct
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.direct.client.flushall()
        self.events = self.direct.client.pubsub()
        self.events.psubscribe(
            "__keyevent@0__:expired", f"{{{NAMESPACE}:*}}:diff:*", f"{{{NAMESPACE}:*}}:person:*"
        )
        for _ in range(3):
            self.events.get_message(timeout=1)
        self.store = self.direct.store
        self.people = PeopleStore(self.direct.runner, self.store.keys)
        self.bans = Bans(self.direct.runner, self.store.keys)
        self.tokens = count(1)
        self.watched = {user: FollowedPerson(user) for user in USERS}
        self.sent: defaultdict[str, list[PersonChange]] = defaultdict(list)
        self.erased: dict[str, int] = {}
        for shard in range(SHARDS):  # the log for webhooks is there from its first reading on
            done(
                self.direct.runner.run("read_changes", self.store.keys.prefixes[shard], "hook", 1, LOG_TTL_MS)
            )
        self.model = PresenceModel(TTL, GRACE, AWAY_GRACE)
        self.received: list[tuple[int, str]] = []
        self.joinings: dict[tuple[str, str], list[tuple[int, FormerJoining]]] = {}
        self.views = {name: RoomView(name) for name in ROOMS}
        for view in self.views.values():
            view.reset("", 0, ())
        self.keys = ExpiredKeys(keyspace(NAMESPACE))

    def teardown(self) -> None:
        self.events.close()
        assert_consistent(self.direct.client)

    # Clients.

    @rule(room=room, user=user, connection=connection)
    def join(self, room: str, user: str, connection: str) -> None:
        self._join(room, user, connection)

    @rule(room=room, user=user, connection=connection, ago=st.integers(0, 2))
    def come_back(self, room: str, user: str, connection: str, ago: int) -> None:
        known = self.joinings.get((room, user), [])
        if ago < len(known):
            self._join(room, user, connection, *known[-1 - ago])

    def _join(
        self, room: str, user: str, connection: str,
        number: int | None = None, former: FormerJoining | None = None,
    ) -> None:  # fmt: skip
        expected = self.model.join(room, user, connection, number)
        entry, token = Entry(room, user), f"{connection}-{next(self.tokens):x}"
        shard = self.store.keys.shard_of(user)
        (asked,) = self.wait(self.people.enter(shard, [(entry, token)]))
        reply = done(self.store.join(entry, connection, ttl=TTL, former=former, person=token))
        if isinstance(reply, JoinRefused):
            assert reply.reason == expected
            self._refused(entry, token)
        else:
            if asked is not Entered.NOTHING:
                away = self.model.rooms[room][user].away
                assert not self.wait(self.people.correct([Correction(entry, away, token)]))
            self._note_away(room, user)
            assert ("resumed" if reply.resumed else "joined") == expected
            assert reply.count == len(self.model.alive(room))
            joining = FormerJoining(reply.epoch, reply.version, reply.joined_at)
            self.joinings.setdefault((room, user), []).append((self.model.joinings, joining))

    def _refused(self, entry: Entry, token: str) -> None:
        """What the index does after a join that was refused."""
        state = self.wait(self.people.memberships([entry], "tokens"))[entry]
        if state.present:
            self.wait(self.people.correct([Correction(entry, state.away, token, state.details[0])]))
        elif not state.suspended:
            self.wait(self.people.exit([Exit(entry, token, "")], keep=KEEP))

    def _note_away(self, room: str, user: str) -> None:
        """Have the index note whether a member is away, as nodes do where that may have changed."""
        member = self.model.alive(room).get(user)
        if member is not None:
            self.wait(self.people.correct([Correction(Entry(room, user), member.away)]))

    @staticmethod
    def wait(coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that makes several calls at once."""
        return Machine.loop.run_until_complete(coroutine)

    @rule(room=room, user=user, node=st.sampled_from(["n1", "n2", "n3"]))
    def heartbeat(self, room: str, user: str, node: str) -> None:
        member = self.model.rooms.get(room, {}).get(user)
        here = member is not None and any(node_of(c) == node for c in member.connections)
        if not here and node not in self.model.fenced:
            return  # a node sends heartbeats for its own connections; a lost one may for former ones
        entry = Entry(room, user)
        suffix = presence_key(NAMESPACE, entry).partition(":room:")[2]
        _, alive = done(self.store.refresh(shard_of(room), node, [(suffix, TTL)]))
        assert (alive == b"1") == self.model.heartbeat(room, user, node)

    @rule(room=room, user=user, connection=connection, away=st.booleans())
    def go_away(self, room: str, user: str, connection: str, away: bool) -> None:
        (found,) = done(self.store.set_away(shard_of(room), [(Entry(room, user), connection, away)]))
        assert (found is not None) == self.model.set_away(room, user, connection, away)
        self._note_away(room, user)

    @rule(room=room, user=user, connection=connection)
    def detach(self, room: str, user: str, connection: str) -> None:
        status = done(self.store.detach(Entry(room, user), connection, grace=GRACE, away_grace=AWAY_GRACE))
        assert status == self.model.detach(room, user, connection)
        self._note_away(room, user)

    @rule(room=room, user=user, connection=connection)
    def leave(self, room: str, user: str, connection: str) -> None:
        status = done(self.store.leave(Entry(room, user), connection))
        assert status == self.model.leave(room, user, connection)
        self._note_away(room, user)

    @rule(room=room, user=user)
    def kick(self, room: str, user: str) -> None:
        assert done(self.store.kick(Entry(room, user))) == self.model.kick(room, user)

    # People and bans.

    @rule(room=st.sampled_from([*ROOMS, None]), user=user)
    def ban(self, room: str | None, user: str) -> None:
        self.wait(self.bans.ban(user, room, seconds=KEEP))
        self.model.ban(room, user)

    @rule(room=st.sampled_from([*ROOMS, None]), user=user)
    def unban(self, room: str | None, user: str) -> None:
        banned = (room, user) in self.model.bans
        assert self.wait(self.bans.unban(user, room)) == banned
        self.model.bans.discard((room, user))

    @rule(twice=st.booleans())
    def departures_are_taken_in(self, twice: bool) -> None:
        """Afterwards the index and its watchers are as the rooms are."""
        for shard in range(SHARDS):
            cursor, exits = self.wait(self.people.exits(shard, "0"))
            assert cursor == "0"
            for _ in range(2 if twice else 1):  # two nodes may take in the same ones
                other = self.wait(self.people.exit([read_exit(*one) for one in exits], keep=KEEP))
                for entry, token in other:
                    self._refused(entry, token)
            self.wait(self.people.drop_exits(shard, exits))
        self._hear()
        records = self.wait(self.people.records(USERS))
        for user in USERS:
            if self.model.is_settled(user):
                status, rooms = self.model.person(user)
                record, watched = records[user], self.watched[user]
                assert (record.status, sorted(record.rooms)) == (status, rooms)
                assert (watched.status, sorted(watched.rooms)) == (status, rooms)
                if status == "offline":
                    assert watched.last_seen == record.last_seen
                    self._check_last_seen(user, record.last_seen)

    @rule(user=user)
    def erase(self, user: str) -> None:
        if self.model.person(user)[0] == "offline" and self.model.is_settled(user):
            self.departures_are_taken_in(twice=False)
            self.wait(self.people.erase(user))
            client: Any = self.direct.client
            seconds, micros = client.time()
            self.erased[user] = seconds * 1000 + micros // 1000
            assert self.wait(self.people.people([user]))[0].last_seen is None

    # Time and events.

    @rule(seconds=st.sampled_from([1, 5, 9, 11, 31, 61]))
    def time_passes(self, seconds: int) -> None:
        self.direct.pass_time(seconds * 1000)
        self.model.pass_time(seconds * 1000)

    @rule(shard=st.sampled_from(sorted({shard_of(room) for room in ROOMS})))
    def pacemaker_scans(self, shard: int) -> None:
        self.direct.pass_time(0)
        found = done(self.store.due(shard, limit=1000, retry=0))
        expired = {
            (room, user) for room in ROOMS if shard_of(room) == shard for user in self.model.expired(room)
        }
        assert {tuple(parse_suffix(text)) for text in found.gone} == expired
        if not expired:
            assert found.next_deadline is None or found.next_deadline >= found.now, (
                "a scan must move deadlines forward"
            )
        assert done(self.store.due(shard, limit=1000, retry=0)).moved == 0, "a second scan moves nothing"

    @rule(lost=st.booleans(), twice=st.booleans())
    def events_come(self, lost: bool, twice: bool) -> None:
        self._hear()
        for shard, suffix in self.received:
            entry = parse_suffix(suffix)
            if not lost:
                claimed = done(self.store.claim(shard, [suffix] * (2 if twice else 1)))
                assert len(claimed) <= 1
                self.model.claim(*entry)
        self.received.clear()

    @rule(room=room, user=user)
    def forged_event(self, room: str, user: str) -> None:
        entry = Entry(room, user)
        suffix = presence_key(NAMESPACE, entry).partition(":room:")[2]
        done(self.store.claim(shard_of(room), [suffix]))
        self.model.claim(room, user)

    def _hear(self) -> None:
        self.events.ping()  # its answer comes behind all that was published before
        while (message := self.events.get_message(timeout=5))["type"] != "pong":
            channel, payload = message["channel"].decode(), message["data"]
            if "}:person:" in channel:
                user = unescape(channel.partition(":person:")[2])
                change = decode_person_change(payload)
                self.sent[user].append(change)
                self.watched[user].apply(change)
            elif ":diff:" in channel:
                room_id = unescape(channel.partition(":diff:")[2])
                assert self.views[room_id].apply(decode_diff(payload).diff(room_id)) is DiffResult.APPLIED
            elif (found := self.keys.parse(payload)) is not None:
                self.received.append(found)

    # Nodes and the sweep.

    @rule(node=st.sampled_from(["n1", "n2"]))
    def node_lost(self, node: str) -> None:
        for shard in range(SHARDS):
            while rooms := done(self.store.fence_node(shard, node)):
                for room in rooms:
                    done(self.store.detach_node(shard, node, room, grace=GRACE, away_grace=AWAY_GRACE))
        self.model.detach_node(node)
        for name in ROOMS:
            for user in USERS:
                self._note_away(name, user)

    @rule()
    def sweep(self) -> None:
        for shard in range(SHARDS):
            page = done(self.store.audit(shard, 0))
            if page.gone:
                done(self.store.claim(shard, page.gone))
        for room in ROOMS:
            self.model.settle(room)

    # Questions.

    @rule(room=room)
    def list_members(self, room: str) -> None:
        listing = done(self.store.members(room))
        self.model.settle(room)
        alive = self.model.alive(room)
        assert {m.user_id: (m.away, m.connections) for m in listing.members} == {
            name: (m.away, m.shown_connections) for name, m in alive.items()
        }
        assert listing.position.count == len(alive)

    @rule(room=room)
    def count_members(self, room: str) -> None:
        position = done(self.store.count(room))
        self.model.settle(room)
        assert position.count == len(self.model.alive(room))

    @rule(room=room, user=user)
    def is_present(self, room: str, user: str) -> None:
        present = done(self.store.is_present(Entry(room, user)))
        self.model.settle_member(room, user)
        assert present == (user in self.model.alive(room))

    # What is true after every step, by plain reads.

    @invariant()
    def redis_and_model_agree(self) -> None:
        client: Any = self.direct.client
        for name in ROOMS:
            present = {u for u in USERS if client.exists(presence_key(NAMESPACE, Entry(name, u)))}
            assert present == set(self.model.alive(name))
        seen: Counter[tuple[str, str, str]] = Counter()
        for shard in {shard_of(name) for name in ROOMS}:
            for _, entry in client.xrange(departures_stream(NAMESPACE, shard)):
                seen[entry[b"room"].decode(), entry[b"user"].decode(), entry[b"reason"].decode()] += 1
        assert seen == self.model.departures

    @invariant()
    def people_and_model_agree(self) -> None:
        """The answer about a user is right at any moment; the index may name too much, and never less."""
        records = self.wait(self.people.records(USERS))
        for found in self.wait(self.people.people(USERS)):
            user = found.user_id
            status, rooms = self.model.person(user)
            assert (found.status, found.rooms) == (status, rooms)
            assert records[user].counted >= set(rooms)
            assert (found.since is not None) == (status != "offline")

    def _check_last_seen(self, user: str, last_seen: int | None) -> None:
        """It is the last activity that a departure has on record, or the leave, since the last erasure."""
        client: Any = self.direct.client
        erased = self.erased.get(user, 0)
        times = [
            int(entry[b"leftAt" if entry[b"reason"] == b"left" else b"lastActiveAt"])
            for shard in {shard_of(room) for room in ROOMS}
            for _, entry in client.xrange(departures_stream(NAMESPACE, shard))
            if entry[b"user"].decode() == user
        ]
        if later := [time for time in times if time > erased]:
            assert last_seen == max(later)
        else:
            assert last_seen is None or last_seen == erased

    @invariant()
    def going_online_and_offline_is_logged_by_turns(self) -> None:
        """Each is published and logged once: no status is followed by the same one without another room."""
        self._hear()
        for changes in self.sent.values():
            rooms: set[str] = set()
            for change in changes:
                room = change.room[1:]
                if change.room.startswith("+"):
                    assert room not in rooms
                    rooms.add(room)
                elif change.room.startswith("-"):
                    assert room in rooms
                    rooms.discard(room)
                assert (change.status == "offline") == (not rooms)
        logged: defaultdict[bytes, list[str]] = defaultdict(list)
        client: Any = self.direct.client
        for shard in {shard_of(user) for user in USERS}:
            for _, entry in client.xrange(f"{self.store.keys.prefixes[shard]}:changes"):
                if b"person" in entry:
                    logged[entry[b"person"]].append(decode_logged(entry[b"change"]).status)
        for statuses in logged.values():
            assert statuses == [("online", "offline")[place % 2] for place in range(len(statuses))]

    @invariant()
    def a_client_that_applies_the_diffs_holds_the_same(self) -> None:
        self._hear()
        for name, view in self.views.items():
            assert {u: (m.away, m.connections) for u, m in view.members.items()} == {
                u: (m.away, m.shown_connections) for u, m in self.model.rooms.get(name, {}).items()
            }
            assert view.count == len(view.members)

    @invariant()
    def no_key_without_an_end(self) -> None:
        if any(self.model.rooms.values()):
            return
        for key in self.direct.client.scan_iter("*"):
            lasting = key.endswith((b":departures", b":totals", b":nodes", b":exits", b":bans"))
            lasting = lasting or b":person:" in key or key.endswith(b":people")  # until exits are taken in
            assert lasting or self.direct.client.pttl(key) > 0, key


decode_logged = msgspec.msgpack.Decoder(PersonLogged).decode


@pytest.mark.timeout(300)
def test_the_scripts_agree_with_the_model(redis_server: Server) -> None:
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    Machine.direct, Machine.loop = Direct(redis_server), asyncio.new_event_loop()
    with closing(Machine.loop):
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
