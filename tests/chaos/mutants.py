"""Broken copies of the code, each by one change: what the oracle must not let pass."""

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change to one file, and the faults under which it shows. Of `rules` one must go red."""

    name: str
    file: str
    before: str
    after: str
    faults: tuple[str, ...]
    rules: frozenset[str]
    seed: int = 7

    def make(self, folder: Path) -> Path:
        """A tree with the change in it. Raises ValueError when the code is not as expected any more."""
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
        "      record_departure(room_id,",
        "      record_departure(room_id, user_id, user_id, why, fields.j or now(), now(), node)\n"
        "      record_departure(room_id,",
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
        "what a gap hid is not told",
        "presence/diffs.py",
        "            if (room.view.epoch, room.view.version) != told:",
        "            if False:",
        ("kill-pubsub",),
        frozenset({"view", "gap"}),
    ),
    Mutant(
        "a leave that only the leaver hears of",
        "presence/lua/room/leave.lua",
        "remove_members(room, { user }, 'left')\nreturn { 'left', now() }",
        "return { 'left', now() }",
        ("script-flush",),
        frozenset({"ghost", "record", "reason"}),
    ),
    Mutant(
        "nobody ends a dead node's members",
        "fleet/peers.py",
        "                await self.detach_node(node)\n",
        "",
        ("kill",),
        frozenset({"ghost", "view", "reason"}),
    ),
    Mutant(
        "a stall of Redis kills",
        "presence/lua/lib/suspension.lua",
        "  if not mark[1] then return nil end",
        "  do return nil end",
        ("stop-server",),
        frozenset({"reason"}),
        seed=2,
    ),
    Mutant(
        "a heartbeat is acknowledged before Redis has it",
        "presence/lua/room/refresh.lua",
        "local there = redis.call('PEXPIREAT', presence, time + ARGV[i + 1], 'GT') == 1",
        "local there = redis.call('EXISTS', presence) == 1",
        ("script-flush",),
        frozenset({"force-leave", "reason"}),
    ),
    Mutant(
        "what is told comes from the node's clock",
        "fleet/registry.py",
        "        return int((monotonic() + self._offset) * 1000)",
        "        import time\n        return int(time.time() * 1000)",
        ("clock-skew",),
        frozenset({"clock"}),
    ),
    Mutant(
        "an empty Redis is believed",
        "server/node.py",
        "if not any(self.reconciler.should_be_there(room_id, user_id) for user_id in missing):",
        "if True:",
        ("flushall",),
        frozenset({"departure", "view", "count"}),
    ),
)
