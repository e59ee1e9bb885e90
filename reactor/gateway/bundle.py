"""The JavaScript client as downloads: one module without a build step, and a package for npm.

`bundle` joins the modules of `reactor/js` in the order in which they need each other. The modules are written
for that: an import or export takes one line, a comment has lines of its own, and no two modules use the same
private name (a test runs the joined file). `pack` makes what `npm install http://HOST:PORT/client.tgz` gets.
"""

import gzip
import io
import re
import tarfile
from importlib.resources.abc import Traversable

_FROM = re.compile(r'^(import|export) (\{.*\}) from "\./([\w-]+\.js)";$', re.MULTILINE)
_COMMENT = re.compile(r"^[ ]*(?:/\*.*?\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)


def bundle(folder: Traversable, entry: str = "index.js") -> str:
    """Return the module `entry` with everything that it imports included, without comments."""
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
        del parts[name]  # so that it comes after its imports
        parts[name] = re.sub(r"^export ", "", own, flags=re.MULTILINE).strip()

    add(entry)
    exports = [f"export {names};" for names in exported]
    return "\n".join([*filter(None, parts.values()), *exports, ""])


def pack(folder: Traversable) -> bytes:
    """Return a folder's files as a tarball; the same files give the same bytes, as npm's lock file needs."""
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.is_dir() or entry.name.startswith("."):
                continue
            content = entry.read_bytes()
            member = tarfile.TarInfo(f"package/{entry.name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(tarball.getvalue(), mtime=0)
