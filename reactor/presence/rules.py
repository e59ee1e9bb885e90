"""Rules of single rooms that are stored in Redis: they apply on every node, before the rules of its settings.

A node keeps all of them in memory, so that a join does not read them. A change is published, and each node
then reads the rule of that room; all are read again after a lost connection, and periodically.
"""

import asyncio

import anyio
import msgspec
import structlog

from reactor.backend.interface import Runner
from reactor.errors import UNREADABLE, SettingError, Unavailable
from reactor.presence.keys import fleet_prefix, rules_channel
from reactor.settings import RoomPolicy, RoomRule, Settings
from reactor.settings.rooms import KEYS, read_rules

log = structlog.get_logger()

MAX_RULES = 10_000
"""Rooms that may have a rule in Redis: each node holds all of them in memory."""

MAX_CACHED_POLICIES = 10_000
"""Rooms whose policy is kept at hand."""

READ_ALL_INTERVAL = 60.0
"""Seconds after which all rules are read again."""
READ_RETRY = 0.5
"""Seconds between attempts while Redis does not answer."""


class TooManyRules(SettingError):
    """MAX_RULES rooms have a rule already."""


class RoomRules:
    """The rules in Redis, and each room's policy by them and the settings; `serve` keeps them up to date.

    A rule's times are seconds. Calls raise Unavailable when Redis does not answer.
    """

    def __init__(self, settings: Settings, runner: Runner, database: int = 0) -> None:
        self._settings, self._runner = settings, runner
        self._prefix = fleet_prefix(settings.namespace)
        self.channel = rules_channel(settings.namespace, database)
        self._rules: dict[str, RoomRule] = {}
        self._unreadable: dict[bytes, str] = {}
        self._policies: dict[str, RoomPolicy] = {}
        self._changed: set[str] = {""}  # rooms to read; "" for all
        self._wakeup = asyncio.Event()
        self._wakeup.set()

    def policy(self, room_id: str) -> RoomPolicy:
        """Return the settings that apply in the room."""
        known = self._policies.get(room_id)
        if known is None:
            if len(self._policies) >= MAX_CACHED_POLICIES:
                self._policies.clear()
            rule, settings = self._rules.get(room_id), self._settings
            policy = settings.policy_under(rule, room_id) if rule else settings.policy(room_id)
            known = self._policies[room_id] = policy
        return known

    def use(self, settings: Settings) -> None:
        """Take the terms of rooms from other settings from now on. A ttl applies from the next join."""
        self._settings = settings
        self._policies.clear()

    async def read(self, room_id: str) -> RoomRule | None:
        """Return the rule that is stored for the room, or None."""
        return (await self._read(room_id)).get(room_id)

    async def put(self, rule: RoomRule) -> None:
        """Store a rule for the room that it names. Raises TooManyRules."""
        fields = {key: getattr(rule, key) for key in KEYS if getattr(rule, key) is not None}
        done = await self._runner.run(
            "set_rule", self._prefix, rule.match, msgspec.json.encode(fields), MAX_RULES
        )
        if done == b"full":
            raise TooManyRules(
                f"{MAX_RULES} rooms have settings of their own, the most there may be: remove some"
            )
        self._replace({**self._rules, rule.match: rule})

    async def remove(self, room_id: str) -> bool:
        """Remove the room's rule; return whether there was one."""
        done = await self._runner.run("set_rule", self._prefix, room_id, "", MAX_RULES)
        self._replace({room: rule for room, rule in self._rules.items() if room != room_id})
        return bool(done == b"gone")

    def changed(self, room_id: str = "") -> None:
        """Note that a room's rule changed; without a room, that any may have."""
        self._changed.add(room_id)
        self._wakeup.set()

    async def serve(self) -> None:
        """Read changed rules until cancelled."""
        while True:
            with anyio.move_on_after(READ_ALL_INTERVAL):
                await self._wakeup.wait()
            self._wakeup.clear()
            changed, self._changed = self._changed or {""}, set()
            try:
                await self._refresh(changed)
            except Unavailable:
                self._changed |= changed
                await anyio.sleep(READ_RETRY)
                self._wakeup.set()

    async def _refresh(self, changed: set[str]) -> None:
        if "" in changed:
            self._replace(await self._read(""))
            return
        for room_id in changed:
            others = {room: rule for room, rule in self._rules.items() if room != room_id}
            found = await self._read(room_id)
            self._replace({**others, **found})

    def _replace(self, rules: dict[str, RoomRule]) -> None:
        self._rules = rules
        self._policies.clear()

    async def _read(self, room_id: str) -> dict[str, RoomRule]:
        flat = await self._runner.run("list_rules", self._prefix, room_id)
        found: dict[str, RoomRule] = {}
        unreadable: dict[bytes, str] = {}
        for i in range(0, len(flat), 2):
            try:
                room = flat[i].decode()
                found[room] = read_rules({room: msgspec.json.decode(flat[i + 1])}, "")[0]
            except (SettingError, *UNREADABLE) as error:
                unreadable[flat[i]] = str(error)[:200]
        self._log_unreadable(unreadable)
        self._unreadable = {**self._unreadable, **unreadable} if room_id else unreadable
        return found

    def _log_unreadable(self, unreadable: dict[bytes, str]) -> None:
        # All rules are read again every minute: each fault is logged once.
        for room, reason in unreadable.items():
            if self._unreadable.get(room) != reason:
                log.warning("room_rule_unreadable", room=str(room)[:200], reason=reason)
