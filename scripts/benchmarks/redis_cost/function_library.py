"""All scripts as one library of Redis Functions: a prototype, measured against scripts loaded one by one.

The library's declarations exist for as long as the library is loaded, where a script creates those that it
uses in each call. Values of one call (its key, its time) are assigned by each function. Names carry a hash of
the content, because the functions of all libraries share one name space, and different releases have to run
side by side (https://redis.io/docs/latest/develop/programmability/functions-intro/).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from reactor.backend.lua import Library, Unit, strip_comments
from reactor.backend.scripts import ScriptSources


@dataclass(frozen=True)
class FunctionLibrary:
    """The library's text, and what its functions' names end with."""

    source: str
    ending: str
    with_server: frozenset[str] = frozenset()

    def name(self, script: str) -> str:
        """Give the name of the function that stands for a script."""
        return script + self.ending

    def takes_server(self, script: str) -> bool:
        """Whether the run id of the server is a script's last argument."""
        return script.removesuffix("_ro") in self.with_server


def function_library(sources: ScriptSources, *, read_only: Sequence[str] = ()) -> FunctionLibrary:
    """Build the library. read_only: scripts that get a twin for FCALL_RO, NAME_ro, which settles nothing."""
    library = Library(sources.library, {**sources.constants, "PUBLISH": "PUBLISH"})
    bodies = {file.rpartition("/")[2].removesuffix(".lua"): text for file, text in sources.scripts.items()}
    units: dict[tuple[str, ...], Unit] = {}
    parts: list[str] = []
    with_server: set[str] = set()
    for name, text in bodies.items():
        code = strip_comments(text)
        reached = library.reached(name, code)
        with_server.update(name for unit in reached if "SERVER" in unit.names)
        units.update((unit.names, unit) for unit in reached)
        setting = [_setting(unit) for unit in reached if _depends_on_call(unit, units)]
        parts.append(_register(name, [*setting, code], "" if name in sources.growing else "'allow-oom'"))
        if name in read_only:
            parts.append(_register(f"{name}_ro", [*setting, "read_only = true", code], "'no-writes'"))
    declared = [_declaration(unit, units) for unit in units.values()]
    text = "\n".join(["local KEYS, ARGV", *declared, *parts]) + "\n"
    ending = "_" + sha256(text.encode()).hexdigest()[:12]
    return FunctionLibrary(
        f"#!lua name=reactor{ending}\n" + text.replace("@ENDING@", ending), ending, frozenset(with_server)
    )


def _register(name: str, lines: Sequence[str], flags: str) -> str:
    head = f"redis.register_function{{ function_name = '{name}@ENDING@', flags = {{ {flags} }}, callback ="
    return "\n".join([head + " function(keys, args)", "KEYS, ARGV = keys, args", *lines, "end }"])


def _depends_on_call(unit: Unit, units: Mapping[tuple[str, ...], Unit]) -> bool:
    """Whether a unit is a value of one call: made from its key, or nil until the call sets it."""
    if unit.code.startswith("local function"):
        return False
    names = set(re.findall(r"\w+", unit.code)) - set(unit.names)
    return (
        "=" not in unit.code
        or unit.code.endswith("= {}")
        or bool({"KEYS", "ARGV"} & names)
        or any(_depends_on_call(other, units) for other in units.values() if names & set(other.names))
    )


def _declaration(unit: Unit, units: Mapping[tuple[str, ...], Unit]) -> str:
    return f"local {', '.join(unit.names)}" if _depends_on_call(unit, units) else unit.code


def _setting(unit: Unit) -> str:
    code = unit.code.removeprefix("local ")
    return code if "=" in code else f"{code} = nil"
