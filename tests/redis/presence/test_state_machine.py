"""All scripts against a plain model: members, counts, departures and reasons agree after every step."""

import os
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from reactor.presence.keys import Entry, ExpiredKeys, parse_suffix, unescape
from reactor.presence.rows import decode_diff
from reactor.presence.store import JoinRefused
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

EXAMPLES = int(os.environ.get("REACTOR_TEST_EXAMPLES", "45"))

room, user, connection = st.sampled_from(ROOMS), st.sampled_from(USERS), st.sampled_from(CONNECTIONS)


class Machine(RuleBasedStateMachine):
    direct: Direct

    def __init__(self) -> None:
        super().__init__()
        self.direct.client.flushall()
        self.events = self.direct.client.pubsub()
        self.events.psubscribe("__keyevent@0__:expired", f"{{{NAMESPACE}:*}}:diff:*")
        for _ in range(2):
            self.events.get_message(timeout=1)
        self.store = self.direct.store
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
        reply = done(self.store.join(Entry(room, user), connection, ttl=TTL, former=former))
        if isinstance(reply, JoinRefused):
            assert reply.reason == expected
        else:
            assert ("resumed" if reply.resumed else "joined") == expected
            assert reply.count == len(self.model.alive(room))
            joining = FormerJoining(reply.epoch, reply.version, reply.joined_at)
            self.joinings.setdefault((room, user), []).append((self.model.joinings, joining))

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

    @rule(room=room, user=user, connection=connection)
    def detach(self, room: str, user: str, connection: str) -> None:
        status = done(self.store.detach(Entry(room, user), connection, grace=GRACE, away_grace=AWAY_GRACE))
        assert status == self.model.detach(room, user, connection)

    @rule(room=room, user=user, connection=connection)
    def leave(self, room: str, user: str, connection: str) -> None:
        status = done(self.store.leave(Entry(room, user), connection))
        assert status == self.model.leave(room, user, connection)

    @rule(room=room, user=user)
    def kick(self, room: str, user: str) -> None:
        assert done(self.store.kick(Entry(room, user))) == self.model.kick(room, user)

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
            if ":diff:" in channel:
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
            lasting = key.endswith((b":departures", b":totals", b":nodes"))
            assert lasting or self.direct.client.pttl(key) > 0, key


def test_the_scripts_agree_with_the_model(redis_server: Server) -> None:
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    Machine.direct = Direct(redis_server)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
