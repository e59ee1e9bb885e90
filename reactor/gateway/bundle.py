"""The JavaScript client as one file, so that a page has it with one request and no build.

The modules of `reactor/js` are joined in the order in which they need each other. They are written for it: an
import or an export stands on one line, a comment has lines of its own, and no two modules give the same name
to something of their own (a test runs the joined file).
"""

import re
from importlib.resources.abc import Traversable

_FROM = re.compile(r'^(import|export) (\{.*\}) from "\./([\w-]+\.js)";$', re.MULTILINE)
_COMMENT = re.compile(r"^[ ]*(?:/\*.*?\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)


def bundled(folder: Traversable, entry: str = "index.js") -> str:
    """Return the module `entry` with all that it imports in it, without comments."""
    parts: dict[str, str] = {}
    exported: list[str] = []

    def add(name: str) -> None:
        if name in parts:
            return
        code = (folder / name).read_text(encoding="utf-8")
        parts[name] = ""
        for kind, names, other in _FROM.findall(code):
            add(other)
            if kind == "export" and name == entry:
                exported.append(names)
        own = _COMMENT.sub("", _FROM.sub("", code))
        del parts[name]  # to stand behind what it needs
        parts[name] = re.sub(r"^export ", "", own, flags=re.MULTILINE).strip()

    add(entry)
    ends = [f"export {names};" for names in exported]
    return "\n".join([*filter(None, parts.values()), *ends, ""])
