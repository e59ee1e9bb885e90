"""A shard as observed from outside: a script's replies, its publications, and the content of its keys.

Tests use short names of rooms and users, whatever their ids are. Redis's active deletion of expired keys is
off, so that only a read deletes one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reactor.presence.keys import Entry, escape, suffix, unescape
from reactor.presence.rows import DiffRow, decode_diff
from tests.support.keyspace import presence_key, shadow_key, shard_of, shard_prefix
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, Direct, DirectRunner

TTL, GRACE, AWAY_GRACE = 60_500, 10_500, 30_500
EMPTY_ROOM_TTL = 60_000
MAX_ROWS = 1000

HOSTILE = {
    "lobby": "a:user:b:room:{c}*?[x]\\ %3A",
    "ann": "\t:user:}{\u2028\u00a0é💥\x00%",
    "bob": ":",
    "cy": "%25:room:members",
}
"""Ids that contain everything that looks like a separator."""


@dataclass
class Received:
    """What was published since the last call, by kind and in order."""

    diffs: list[tuple[str, DiffRow]] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    changes: list[str] = field(
        default_factory=list
    )  # each diff in a line: `0>1 (1) +ann`, or ~ann, -ann:reason
    wakes: list[int] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)


class Probe(Direct):
    """A server, with calls to change it and to observe it."""

    def __init__(
        self, server: Server, *, ids: Mapping[str, str] | None = None, departures_kept: int = 100_000
    ) -> None:
        super().__init__(server)
        server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        self.runner = DirectRunner(self.client, departures_kept=departures_kept)
        self.ids = dict(ids or {})
        self.shadow_deleted = False  # externally
        self._names = {identifier: name for name, identifier in self.ids.items()}
        self._pubsub = self.client.pubsub()
        self._pubsub.psubscribe("__keyevent@0__:*", f"{{{NAMESPACE}:*}}:*")
        for _ in range(2):
            self._pubsub.get_message(timeout=1)

    def close(self) -> None:
        self._pubsub.close()
        self.client.close()

    def id(self, name: str) -> str:
        return self.ids.get(name, name)

    def name(self, identifier: str) -> str:
        return self._names.get(identifier, identifier)

    def entry(self, user: str, room: str = "lobby") -> Entry:
        return Entry(self.id(room), self.id(user))

    # What is done.

    def on_shard(self, script: str, room: str, *args: Any) -> Any:
        """A script on the room's shard; the raw reply."""
        coroutine = self.runner.run(script, shard_prefix(NAMESPACE, shard_of(self.id(room))), *args)
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it waited")

    def in_room(self, script: str, room: str = "lobby", *args: Any) -> Any:
        return self.on_shard(script, room, escape(self.id(room)), *args)

    def ask(self, script: str, user: str, *args: Any, room: str = "lobby") -> Any:
        """A script about one member."""
        return self.on_shard(script, room, escape(self.id(room)), escape(self.id(user)), *args)

    def join(self, user: str, connection: str = "n1.1", *, room: str = "lobby", **options: Any) -> Any:
        given: dict[str, Any] = {
            "username": "", "data": "", "connection": connection, "ttl": TTL, "max_members": 0,
            "epoch": "", "replaces": "", "away": 0, "joined_at": "", "resume": "", "max_connections": 0,
            "person": "", "home": "",
        }  # fmt: skip
        return self.ask("join", user, self.id(room), self.id(user), *(given | options).values(), room=room)

    def join_many(self, users: Iterable[str], *, room: str = "lobby", ttl: int = TTL) -> None:
        """New members over one connection each, in one round trip."""
        source = self.runner.source("join")
        prefix = shard_prefix(NAMESPACE, shard_of(self.id(room)))
        digest: Any = self.client.script_load(source)
        pipe = self.client.pipeline(transaction=False)
        for number, user in enumerate(users):
            names = escape(self.id(room)), escape(self.id(user)), self.id(room), self.id(user)
            terms = "", "", f"n1.{number}", ttl, 0, "", "", 0, "", "", 0, "", ""
            pipe.evalsha(digest, 1, prefix, *names, *terms, self.runner.run_id)
        assert all(reply[0][0] == b"joined" for reply in pipe.execute())

    def detach(
        self, user: str, connection: str = "n1.1", *, grace: int = GRACE, away_grace: int = AWAY_GRACE,
        room: str = "lobby",
    ) -> Any:  # fmt: skip
        (reply,) = self.ask("detach", user, connection, grace, away_grace, 0, room=room)
        return reply

    def refresh(self, *users: str, node: str = "n1", room: str = "lobby", ttl: int = TTL) -> Any:
        flat = [part for user in users for part in (suffix(self.entry(user, room)), ttl)]
        return self.on_shard("refresh", room, node, *flat)

    def claim(self, *users: str, room: str = "lobby") -> Any:
        flat = [part for user in users for part in (escape(self.id(room)), escape(self.id(user)), "")]
        return self.on_shard("claim", room, 0, *flat)

    def due(self, *, room: str = "lobby", limit: int = 1000, retry: int = 250) -> Any:
        return self.on_shard("due", room, limit, retry)

    def expire(self, *users: str, room: str = "lobby") -> None:
        """Let these members expire, at their stored deadlines too."""
        now = self.now()
        pipe = self.client.pipeline(transaction=False)
        for user in users:
            # A TTL that has passed when Redis sets it deletes the key without an event, as on a busy machine.
            pipe.pexpire(self.presence_key(user, room), 20)
            pipe.zadd(self.members_key(room), {escape(self.id(user)): now + 1}, xx=True)
        pipe.zadd(self.key("rooms", room), {escape(self.id(room)): now + 1}, xx=True, lt=True)
        pipe.execute()
        self.advance_clock(0.022)

    def advance_clock(self, seconds: float = 0.004) -> None:
        """Let Redis's clock move by a few milliseconds."""
        self.client.execute_command("DEBUG", "SLEEP", str(seconds))

    # What is seen.

    def now(self) -> int:
        """Redis's time (ms)."""
        time: Any = self.client.time()
        return int(time[0]) * 1000 + int(time[1]) // 1000

    def received(self) -> Received:
        """What was published since the last call."""
        received = Received()
        self._pubsub.ping()  # its answer comes behind all that was published before
        while (message := self._pubsub.get_message(timeout=5))["type"] != "pong":
            channel, payload = message["channel"].decode(), message["data"]
            if channel.endswith(":expired"):
                received.expired.append(payload.decode())
            elif channel.endswith("}:wake"):
                received.wakes.append(int(payload))
            elif ":diff:" in channel:
                row = decode_diff(payload)
                received.diffs.append((unescape(channel.partition(":diff:")[2]), row))
                received.payloads.append(payload)
                received.changes.append(self._text_of(row))
        return received

    def _text_of(self, row: DiffRow) -> str:
        changes = [
            *(f"+{self.name(one.user_id)}" for one in row.joined),
            *(f"~{self.name(one.user_id)}" for one in row.updated),
            *(f"-{self.name(one.user_id)}:{one.reason}" for one in row.left),
        ]
        return " ".join([f"{row.from_version}>{row.version} ({row.count})", *sorted(changes)])

    def key(self, rest: str, room: str = "lobby") -> str:
        """A key of the room's shard."""
        return f"{shard_prefix(NAMESPACE, shard_of(self.id(room)))}:{rest}"

    def members_key(self, room: str = "lobby") -> str:
        return self.key(f"members:{escape(self.id(room))}", room)

    def state_key(self, room: str = "lobby") -> str:
        return self.key(f"state:{escape(self.id(room))}", room)

    def presence_key(self, user: str, room: str = "lobby") -> str:
        return presence_key(NAMESPACE, self.entry(user, room))

    def shadow_key(self, user: str, room: str = "lobby") -> str:
        return shadow_key(NAMESPACE, self.entry(user, room))

    def removal_key(self, user: str, room: str = "lobby") -> str:
        """The note of how the user's last membership ended."""
        return self.key(f"removal:room:{suffix(self.entry(user, room))}", room)

    def presence(self, user: str, room: str = "lobby") -> dict[str, str]:
        return self.hash(self.presence_key(user, room))

    def shadow(self, user: str, room: str = "lobby") -> dict[str, str]:
        return self.hash(self.shadow_key(user, room))

    def remaining(self, user: str, room: str = "lobby") -> int:
        """The life that is left to a member (ms), -2 when it is gone."""
        remaining: Any = self.client.pttl(self.presence_key(user, room))
        return int(remaining)

    def joined_at(self, user: str, room: str = "lobby") -> int:
        """When the member joined (ms), or had joined that departed last."""
        known = self.shadow(user, room).get("j")
        left = [one["joinedAt"] for one in self.departures(room) if one["user"] == self.id(user)]
        return int(known or left[-1])

    def expires_at(self, user: str, room: str = "lobby") -> int:
        """When the presence key ends (ms), -2 when it is gone."""
        at: Any = self.client.pexpiretime(self.presence_key(user, room))
        return int(at)

    def stored_deadline(self, user: str, room: str = "lobby") -> int:
        """The member's stored deadline (ms)."""
        score: Any = self.client.zscore(self.members_key(room), escape(self.id(user)))
        return int(score)

    def epoch(self, room: str = "lobby") -> str:
        return self.hash(self.state_key(room)).get("epoch", "")

    def version(self, room: str = "lobby") -> int:
        return int(self.hash(self.state_key(room)).get("version", 0))

    def departures(self, room: str = "lobby") -> list[dict[str, str]]:
        """The entries of the shard's stream, oldest first."""
        entries: Any = self.client.xrange(self.key("departures", room))
        return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]

    def totals(self, room: str = "lobby") -> dict[str, int]:
        return {reason: int(number) for reason, number in self.hash(self.key("totals", room)).items()}

    def keys(self) -> set[str]:
        client: Any = self.client
        return {key.decode() for key in client.scan_iter("*")}

    def hash(self, key: str) -> dict[str, str]:
        found: Any = self.client.hgetall(key)
        return {name.decode(): value.decode() for name, value in found.items()}
