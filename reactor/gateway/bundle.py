"""The JavaScript client as downloads: one module without a build step, and a package for npm.

`bundle` joins the modules of `reactor/js` in the order in which they need each other. The modules are written
for that: an import or export takes one line, a comment has lines of its own, and no two modules use the same
private name (a test runs the joined file). `bundle_addition` makes a second module, which imports the first.
`pack` makes what `npm install http://HOST:PORT/client.tgz` gets.
"""

import gzip
import io
import re
import tarfile
from collections.abc import Container, Iterable
from importlib.resources.abc import Traversable

_FROM = re.compile(r'^(import|export) (\{.*\}) from "\./([\w-]+\.js)";$', re.MULTILINE)
_COMMENT = re.compile(r"^[ ]*(?:/\*.*?\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)


def bundle(folder: Traversable, entry: str = "index.js", additions: Iterable[str] = ()) -> str:
    """Return the module `entry` with everything that it imports included, without comments.

    It also exports what the bundles of `additions` import from it.
    """
    modules = _modules(folder, entry)
    exported = [
        names
        for kind, names, _ in _FROM.findall((folder / entry).read_text(encoding="utf-8"))
        if kind == "export"
    ]
    for addition in additions:
        public = {name for names in exported for name in _names(names)}
        internal = sorted(_imported(folder, addition, modules) - public)
        if internal:
            exported.append(f"{{ {', '.join(internal)} }}")
    code = (_without_exports(part) for part in modules.values())
    return "\n".join([*filter(None, code), *(f"export {names};" for names in exported), ""])


def bundle_addition(
    folder: Traversable, addition: str, base: str = "index.js", url: str = "./client.js"
) -> str:
    """Return the module `addition` which imports what it needs of the bundle of `base` from `url`."""
    shared = _modules(folder, base)
    names = sorted(_imported(folder, addition, shared))
    own = {name: part for name, part in _modules(folder, addition).items() if name not in shared}
    code = [part if name == addition else _without_exports(part) for name, part in own.items()]
    return "\n".join([f'import {{ {", ".join(names)} }} from "{url}";', *code, ""])


def _modules(folder: Traversable, entry: str) -> dict[str, str]:
    """Return the code of a module and of those that it imports, by name, each after its imports."""
    parts: dict[str, str] = {}
    seen: set[str] = set()

    def add(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        code = (folder / name).read_text(encoding="utf-8")
        for _, _, other in _FROM.findall(code):
            add(other)
        parts[name] = _COMMENT.sub("", _FROM.sub("", code)).strip()

    add(entry)
    return parts


def _imported(folder: Traversable, addition: str, base: Container[str]) -> set[str]:
    """Return the names that a module, and those that it brings along, import from modules of the base."""
    return {
        name
        for module in _modules(folder, addition)
        if module not in base
        for _, names, other in _FROM.findall((folder / module).read_text(encoding="utf-8"))
        if other in base
        for name in _names(names)
    }


def _names(braces: str) -> list[str]:
    return [name.strip() for name in braces.strip("{} ").split(",")]


def _without_exports(code: str) -> str:
    return re.sub(r"^export ", "", code, flags=re.MULTILINE)


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
