"""The Lua files of presence, as the backend loads them: a script for each change of state, and a library."""

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from reactor.backend.scripts import ScriptSources
from reactor.presence.rows import MEMBER_FIELDS

LIBRARY = "lib"

GROWING = frozenset({"join", "update", "set_rule"})
"""The scripts that add data to Redis. Beyond `maxmemory` Redis refuses these alone: no departure fails."""


def lua_sources(*, departures_kept: int) -> ScriptSources:
    """All Lua of presence. departures_kept: entries that a shard's stream of departures keeps, about."""
    texts = dict(_read(files("reactor.presence") / "lua"))
    return ScriptSources(
        scripts={path: text for path, text in texts.items() if not path.startswith(LIBRARY)},
        library={path: text for path, text in texts.items() if path.startswith(LIBRARY)},
        constants={"DEPARTURES_KEPT": departures_kept, "MEMBER_FIELDS": tuple(MEMBER_FIELDS)},
        growing=GROWING,
    )


def _read(root: Traversable) -> Iterator[tuple[str, str]]:
    """Each file's path within the folder (`room/join.lua`), and its text, in the order of paths."""
    for folder in sorted(root.iterdir(), key=lambda folder: folder.name):
        for path in sorted(folder.iterdir(), key=lambda path: path.name):
            yield f"{folder.name}/{path.name}", path.read_text()
