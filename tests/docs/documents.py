"""The documents of the project, and the examples in them that the tests run as they stand there."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

PATHS: Final = (
    "README.md",
    "reactor/ARCHITECTURE.md",
    "reactor/js/README.md",
    "reactor/client/README.md",
    "reactor/protocol/README.md",
    "reactor/presence/README.md",
    "reactor/settings/README.md",
    "reactor/gateway/README.md",
    "reactor/webhooks/README.md",
    "reactor/admin/README.md",
    "redis-conf/README.md",
    "scripts/README.md",
    "scripts/deploy/README.md",
    "scripts/deploy/CAPACITY.md",
    "scripts/deploy/UPGRADING.md",
    "tests/README.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
)
"""Every document, relative to the project's root."""


def document(path: str) -> str:
    """The text of a document."""
    return (ROOT / path).read_text(encoding="utf-8")


EVERYTHING: Final = "\n".join(document(path) for path in PATHS)


def blocks(language: str, text: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def example(name: str, language: str = "python") -> str:
    """The block behind the comment `<!-- run: NAME -->`, wherever it is."""
    pattern = rf"<!-- run: {name} -->\n```{language}\n(.*?)^```"
    (found,) = re.findall(pattern, EVERYTHING, re.MULTILINE | re.DOTALL)
    return str(found)


def section(path: str, title: str) -> str:
    """A section of a document, without those beside it; the title with its `#` signs."""
    signs = title.partition(" ")[0]
    behind = document(path).split(f"\n{title}\n")[1]
    return re.split(rf"^#{{1,{len(signs)}}} ", behind, maxsplit=1, flags=re.MULTILINE)[0]
