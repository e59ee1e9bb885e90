"""Links Lua scripts with a library: each script gets the declarations that it uses, and no others. PURE.

A library file holds only `local` declarations at its top level. Each is a unit, found by the names that it
declares, and may use units of any file. Comments and indentation are left out of what is linked.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_COMMENT_OR_STRING = re.compile(r"""('(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")|--[^\n]*""")
_STRING_OR_SPACES = re.compile(r"""('(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")| ?([=~<>,{}()+*/]+) ?""")
_IDENTIFIER = re.compile(r"(?:(?<=\.\.)|(?<![\w.:]))[A-Za-z_]\w*")
_DECLARED = re.compile(
    r"\blocal (?!function\b)([\w, ]+)|\bfunction ?\w*\(([\w,.\s]*)\)|\bfor ([\w, ]+?) (?:in|=)"
)
_TABLE, _FIELD = re.compile(r"\{[^{}]*\}"), re.compile(r"\b\w+ =(?!=)")
_LOCAL_FUNCTION = re.compile(r"\blocal function (\w+)")
_UNIT = re.compile(r"local (?:function )?([\w, ]+)")
_WORD = re.compile(r"\w+")
_KEYWORDS = frozenset(
    _WORD.findall(
        "and break do else elseif end false for function if in local nil not or repeat return then true "
        "until while"
    )
)
_PROVIDED = frozenset(
    _WORD.findall(
        "KEYS ARGV redis cjson cmsgpack bit struct string table math assert error ipairs next pairs pcall "
        "select setmetatable tonumber tostring type unpack"
    )
)
"""What Redis provides (https://redis.io/docs/latest/develop/programmability/lua-api/)."""


Constant = str | int | tuple[str, ...]


class LuaLinkError(ValueError):
    """A script or a library file that cannot be linked; the message begins with the file's name."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A top-level declaration of the library: the names that it declares, and those of units that it uses."""

    names: tuple[str, ...]
    file: str
    code: str
    uses: frozenset[str]


class Library:
    """The units of some library files, given as name and text, and constants, which become units too.

    Raises LuaLinkError for a name that is declared twice, for one that nothing declares, and for units that
    use each other in a circle.
    """

    def __init__(self, files: Mapping[str, str], constants: Mapping[str, Constant] | None = None) -> None:
        self._units: dict[str, Unit] = {}
        self._places: dict[str, int] = {}
        for name, value in (constants or {}).items():
            code = f"local {name} = {_literal(value)}"
            self._add(Unit((name,), "the constants", code, frozenset()))
        declared = [unit for file, text in files.items() for unit in _declarations(file, text)]
        for unit in declared:
            self._add(unit)
        for unit in declared:
            uses = self._uses(unit.file, unit.code, own=frozenset(unit.names))
            linked = Unit(unit.names, unit.file, unit.code, uses)
            self._units.update(dict.fromkeys(unit.names, linked))
        found: dict[str, Unit] = {}
        for unit in declared:
            self._collect(self._units[unit.names[0]], found, [])

    def link(self, file: str, text: str) -> str:
        """The code of a script behind that of all units that it reaches, without indentation."""
        code = strip_comments(text)
        lines = "\n".join([*(unit.code for unit in self.reached(file, code)), code]).splitlines()
        return "\n".join(line.lstrip() for line in lines) + "\n"

    def reached(self, file: str, code: str) -> list[Unit]:
        """The units that some code needs, each behind those that it uses."""
        found: dict[str, Unit] = {}
        for unit in self._named(self._uses(file, code)):
            self._collect(unit, found, [])
        return list(found.values())

    def _named(self, names: frozenset[str]) -> list[Unit]:
        """The units of these names, in the order in which they are declared."""
        return [self._units[name] for name in sorted(names, key=self._places.__getitem__)]

    def _add(self, unit: Unit) -> None:
        for name in unit.names:
            if (other := self._units.get(name)) is not None:
                raise LuaLinkError(f"{unit.file}: {name} is declared in {other.file} too")
            self._places[name] = len(self._units)
            self._units[name] = unit

    def _uses(self, file: str, code: str, own: frozenset[str] = frozenset()) -> frozenset[str]:
        """The names of units in some code. Raises LuaLinkError for a name that nothing declares."""
        bare = _without_fields(_COMMENT_OR_STRING.sub("''", code))
        inside = _locals(bare) - own
        if shadowed := sorted(inside & self._units.keys()):
            raise LuaLinkError(f"{file}: {shadowed[0]} hides that of {self._units[shadowed[0]].file}")
        used = set(_IDENTIFIER.findall(bare)) - _KEYWORDS - _PROVIDED - inside - own
        if unknown := sorted(used - self._units.keys()):
            raise LuaLinkError(f"{file}: nothing declares {unknown[0]}")
        return frozenset(used)

    def _collect(self, unit: Unit, found: dict[str, Unit], path: list[Unit]) -> None:
        name = unit.names[0]
        if name in found:
            return
        names = [one.names[0] for one in path]
        if name in names:
            circle = [*path[names.index(name) :], unit]
            between = " -> ".join(f"{one.names[0]} ({one.file})" for one in circle)
            raise LuaLinkError(f"{unit.file}: units use each other in a circle: {between}")
        for used in self._named(unit.uses):
            self._collect(used, found, [*path, unit])
        found[name] = unit


def _literal(value: Constant) -> str:
    return f"{{ {', '.join(map(repr, value))} }}" if isinstance(value, tuple) else repr(value)


def _without_fields(code: str) -> str:
    """Lua whose tables, also those in tables, are lists of their values in parentheses."""
    while (inner := _TABLE.sub(lambda table: f"({_FIELD.sub('', table[0][1:-1])})", code)) != code:
        code = inner
    return code


def strip_comments(text: str) -> str:
    """Lua without comments and empty lines."""
    code = _COMMENT_OR_STRING.sub(lambda match: match[1] or "", text)
    return "\n".join(line.rstrip() for line in code.splitlines() if line.strip())


def strip_spaces(code: str) -> str:
    """Lua without spaces beside characters that separate words by themselves."""
    return _STRING_OR_SPACES.sub(lambda match: match[1] or match[2], code)


def _declarations(file: str, text: str) -> Iterator[Unit]:
    """The top-level declarations of a library file, without what they use."""
    parts: list[list[str]] = []
    for line in strip_comments(text).splitlines():
        if line.startswith("local "):
            parts.append([line])
        elif parts and line[0] in " })e":
            parts[-1].append(line)
        else:
            raise LuaLinkError(f"{file}: a library only declares locals; this is something else: {line}")
    for lines in parts:
        match = _UNIT.match(lines[0])
        assert match is not None
        yield Unit(tuple(match[1].replace(" ", "").split(",")), file, "\n".join(lines), frozenset())


def _locals(code: str) -> frozenset[str]:
    """The names that some code declares, wherever it does."""
    lists = [text for groups in _DECLARED.findall(code) for text in groups]
    return frozenset(_WORD.findall(" ".join([*lists, *_LOCAL_FUNCTION.findall(code)])))
