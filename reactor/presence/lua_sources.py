"""The Lua files of presence, as the backend loads them: a script for each change of state, and a library."""

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from reactor.backend.scripts import ScriptSources
from reactor.presence.keys import (
    BAN_MARK,
    DAMAGED_MARK,
    DISCONNECT_MARK,
    MISSING_MARK,
    REVOKED_MARK,
    database_mark,
)
from reactor.presence.rows import MEMBER_FIELDS, PAGE_BYTES

LIBRARY = "lib"

GROWING = frozenset({"join", "update", "set_rule", "enter_people", "check_memory"})
"""The scripts that add data to Redis, and one that adds none, to ask whether they may.

Beyond `maxmemory` Redis refuses these alone: no departure fails.
"""

URGENT = frozenset(
    {
        "refresh", "detach", "set_away",
        "claim", "ask_nodes", "due", "mark_shard_alive", "acquire_leadership", "resign", "renew_lease",
        "list_nodes", "fence_node", "detach_node",
    }
)  # fmt: skip
"""The scripts that never wait behind a listing or a join: they keep members alive and make departures.

A detach shortens the life that a heartbeat extends, and it starts one grace or another by whether the
connection was away. So these three keep their order in one lane.
"""

VITAL = frozenset({"refresh", "renew_lease", "mark_shard_alive", "acquire_leadership", "check_rights"})
"""The scripts that keep members and this node alive: while Redis refuses one, it is as if it were away.

`check_rights` stands for all others in a shard: it runs there each second or two, whatever else does.
"""

READING = frozenset({"list", "list_rooms", "count", "is_present", "still_members", "read_format", "has_data"})
"""The scripts that change nothing, beyond settling a room, which any call may do."""

TOGETHER = {"join": 32, "leave": 32}
"""Scripts that take several members, and how many at most: about 2 ms of Redis's time."""

REPLY_BYTES = {
    "list": PAGE_BYTES, "list_rooms": 32_768, "join": 8192, "update": 8192, "set_away": 8192,
    "claim": 131_072, "due": 65_536, "audit_rooms": 131_072, "audit_room": 131_072,
    "read_changes": 524_288, "list_reports": 65_536, "list_revocations": 65_536,
    "read_people": 131_072, "audit_people": 131_072, "take_exits": 65_536, "page_tokens": 131_072,
}  # fmt: skip
"""The sizes of replies, about, that can be larger than a kilobyte."""


@lru_cache(maxsize=8)
def lua_sources(*, departures_kept: int, database: int = 0) -> ScriptSources:
    """All Lua of presence, read once.

    departures_kept: entries that a shard's stream of departures keeps, about. database: the number of the
    database in which the scripts run, which channels carry.
    """
    texts = dict(_read(files("reactor.presence") / "lua"))
    return ScriptSources(
        scripts={path: text for path, text in texts.items() if not path.startswith(LIBRARY)},
        library={path: text for path, text in texts.items() if path.startswith(LIBRARY)},
        constants={
            "BAN_MARK": BAN_MARK.decode(),
            "DAMAGED_MARK": DAMAGED_MARK.decode(),
            "DATABASE": database_mark(database),
            "DEPARTURES_KEPT": departures_kept,
            "DISCONNECT_MARK": DISCONNECT_MARK.decode(),
            "MEMBER_FIELDS": tuple(MEMBER_FIELDS),
            "MISSING_MARK": MISSING_MARK.decode(),
            "REVOKED_MARK": REVOKED_MARK.decode(),
        },
        growing=GROWING,
        urgent=URGENT,
        vital=VITAL,
        reply_bytes=REPLY_BYTES,
        together=TOGETHER,
        reading=READING,
    )


def _read(root: Traversable) -> Iterator[tuple[str, str]]:
    """Each file's path within the folder (`room/join.lua`), and its text, in the order of paths."""
    for folder in sorted(root.iterdir(), key=lambda folder: folder.name):
        for path in sorted(folder.iterdir(), key=lambda path: path.name):
            yield f"{folder.name}/{path.name}", path.read_text()
