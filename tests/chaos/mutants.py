"""Mutations of the package, each of which the oracle must report as a finding."""

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEED_WITH_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change to one file, the faults under which it has an effect, and the rules of which one must fail."""

    name: str
    file: str
    before: str
    after: str
    faults: tuple[str, ...]
    rules: frozenset[str]
    seed: int = 7

    def make(self, folder: Path) -> Path:
        """Copy the package with the change. Raises ValueError if the file lacks the text to change."""
        shutil.copytree(ROOT / "reactor", folder / "reactor", ignore=shutil.ignore_patterns("node_modules"))
        file = folder / "reactor" / self.file
        text = file.read_text()
        if self.before not in text:
            raise ValueError(f"{self.name}: {self.file} does not hold {self.before!r}")
        file.write_text(text.replace(self.before, self.after, 1))
        return folder


MUTANTS = (
    Mutant(
        "a departure is recorded twice",
        "presence/lua/lib/departures.lua",
        "      append_departure(room_id,",
        "      append_departure(room_id, user_id, user_id, why, fields.j or now(), now(), node, at)\n"
        "      append_departure(room_id,",
        ("drop",),
        frozenset({"once"}),
    ),
    Mutant(
        "no grace",
        "presence/lua/lib/departures.lua",
        "  if grace <= 0 then",
        "  if true then",
        ("drop",),
        frozenset({"reason"}),
    ),
    Mutant(
        "changes found after a gap are not published",
        "presence/room_feed.py",
        "            if room.position != position:",
        "            if False:",
        ("kill-pubsub",),
        frozenset({"view", "gap"}),
    ),
    Mutant(
        "a leave is acknowledged and not executed",
        "presence/lua/room/leave.lua",
        "  table.insert(leaving.users, user)\n",
        "",
        ("script-flush",),
        frozenset({"ghost", "record", "reason"}),
    ),
    Mutant(
        "the members of a dead node stay",
        "fleet/peers.py",
        "                self._tasks.start_soon(self._detach_lost, node)\n",
        "",
        ("kill",),
        frozenset({"ghost", "view", "reason"}),
    ),
    Mutant(
        "expiry is not suspended after a stall of Redis",
        "presence/lua/lib/suspension.lua",
        "  if not at or not lease then return nil, true end",
        "  do return nil end",
        ("stop-server",),
        frozenset({"reason"}),
        seed=2,
    ),
    Mutant(
        "a heartbeat is acknowledged without a refresh",
        "presence/lua/room/refresh.lua",
        "local there = redis.call('PEXPIREAT', presence, deadline, 'GT') == 1",
        "local there = redis.call('EXISTS', presence) == 1",
        ("script-flush",),
        frozenset({"force-leave", "reason"}),
    ),
    Mutant(
        "timestamps come from the clock of the node",
        "fleet/registry.py",
        "        return int((monotonic() + self._offset) * 1000)",
        "        import time\n        return int(time.time() * 1000)",
        ("clock-skew",),
        frozenset({"clock"}),
    ),
    Mutant(
        "an empty room after a loss of data is published",
        "presence/room_feed.py",
        "            if not members.keys() <= listed:",
        "            if False:",
        ("flushall",),
        frozenset({"departure", "view", "count"}),
    ),
    Mutant(
        "the index does not have a room of a join",
        "presence/lua/lib/people.lua",
        "  if #fields > 2 or fields[2] ~= found then call('HSET', person, unpack(fields)) end\n",
        "",
        ("drop",),
        frozenset({"people", "index"}),
    ),
    Mutant(
        "a room stays in the index after its departure",
        "presence/lua/lib/people.lua",
        "      redis.call('DEL', unpack(left.records))\n",
        "",
        ("drop",),
        frozenset({"people", "index"}),
    ),
    Mutant(
        "going online is logged twice",
        "presence/lua/lib/people.lua",
        "    log_person(home, user, 'online', now())\n",
        "    for _ = 1, 2 do log_person(home, user, 'online', now()) end\n",
        ("drop",),
        frozenset({"people"}),
    ),
    Mutant(
        "going online and offline is not logged",
        "presence/lua/lib/people.lua",
        "  if has_log(home) then\n",
        "  if false then\n",
        ("drop",),
        frozenset({"people"}),
    ),
    Mutant(
        "a token without a claim lets its user watch everyone",
        "gateway/people_rights.py",
        "user for user in user_ids if identity is not None and identity.may_watch(user)",
        "user for user in user_ids if identity is not None",
        ("drop",),
        frozenset({"people"}),
        seed=SEED_WITH_TOKENS,
    ),
    Mutant(
        "rooms are sent to everyone who watches a user",
        "gateway/people_rights.py",
        "        return identity is not None and identity.where\n",
        "        return True\n",
        ("drop",),
        frozenset({"people"}),
    ),
    Mutant(
        "a user was last seen a minute too early",
        "presence/lua/lib/people.lua",
        "    last = note_seen(home, user, last, keep)\n",
        "    last = note_seen(home, user, last - 60000, keep)\n",
        ("drop",),
        frozenset({"people"}),
    ),
    Mutant(
        "watchers are not sent that a user is offline",
        "membership/people_watch.py",
        "        if person.user_id not in self._watchers:\n",
        '        if person.user_id not in self._watchers or person.status == "offline":\n',
        ("drop",),
        frozenset({"people"}),
    ),
    Mutant(
        "a departure whose node died is not taken into the index",
        "presence/people_index.py",
        "                if first or self._leading():\n",
        "                if False:\n",
        ("kill-before-exit",),
        frozenset({"people", "index"}),
    ),
    Mutant(
        "a ban refuses no join",
        "presence/lua/room/join.lua",
        "    local ban = find_ban(room, user)\n",
        "    local ban = nil\n",
        ("drop",),
        frozenset({"banned"}),
    ),
    Mutant(
        "the last count is not sent to observers",
        "gateway/watched_counts.py",
        "            self._timer = self._loop.call_later(seconds, self._flush)\n",
        "            self._timer = self._loop.call_later(seconds, self.stop)\n",
        ("drop",),
        frozenset({"view"}),
    ),
)
