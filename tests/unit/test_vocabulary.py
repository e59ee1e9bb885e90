"""The words of the project: code, tests and documents use the field's terms, one for each concept.

.github/CONTRIBUTING.md has the vocabulary. INSTEAD has the words that a term has replaced. Identifiers are
split into words before they are compared, so `held until` also finds `held_until` and `heldUntil`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("reactor", "tests", "scripts", "redis-conf", ".github")
SUFFIXES = {
    ".conf", ".css", ".html", ".js", ".jsx", ".lua", ".md", ".mjs", ".py", ".service", ".ts", ".tsx",
    ".yaml", ".yml",
}  # fmt: skip
SKIPPED = {"node_modules", "__pycache__", "dist", "build", "results", "test_vocabulary.py"}

INSTEAD = {
    r"told(?! from)": "notified, sent, published, reported, logged",
    r"tells?(?! \w+( \w+)? (apart|from))": "notify, send, publish, report, log",
    r"(?<![\"'`/:])nobody|somebody|anybody|whoever|whomever": "a member, user, client, operator, application",
    r"mend(s|ed|ing)?": "fix, repair",
    r"test b1?\d": "the behaviour, not its number in a document",
    r"roll ?calls?": "recovery barrier",
    r"good name": "registered",
    r"(let|lets|letting) go of": "release, close, detach",
    r"(put|puts|putting) out": "remove, evict",
    r"(end|ends|ended|ending) by time|(its|whose|until) time is up|runs out|ran out|has run out": "expire",
    r"held until": "expiry suspended until",
    r"companions?": "peers",
    r"farewells?": "close error, force leave",
    r"spare the collector": "tune gc",
    r"of one mind": "agree, converge",
    r"(make|makes|making|made) good": "repair, restore",
    r"a hand|by hand": "externally, manually",
    r"(stand|stands|standing) in for": "replace",
    r"(go|goes|going|went) on with": "continue",
    r"(keep|keeps|keeping) time for": "lead",
    r"take turn|whose turn|has its turn|pacemaker's turn": "leader, leadership",
    r"doors?|knocks?|entrances?|strangers?": "authentication, admission, pending handshakes",
    r"pulses|pulsed|pulsing|(?<![:\"'`])pulse(?!\$)": "mark as alive (the stored key alone is called pulse)",
}
"""Patterns of words that are not used, and the terms to use instead."""

FORMER_CLASSES = {
    "Dropping", "Entering", "RollCall", "Turn", "Door", "Knock", "Patient", "Hub", "Tally", "Visit", "Fate",
}  # fmt: skip

_PATTERN = re.compile(r"\b(?:" + "|".join(INSTEAD) + r")\b", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def former_words(line: str) -> list[str]:
    """The words in a line that are not used."""
    words = _CAMEL.sub(" ", line).replace("_", " ")
    return [found[0] for found in _PATTERN.finditer(words)]


def files() -> Iterator[Path]:
    """The source files and documents of the project."""
    yield from ROOT.glob("*.md")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in SUFFIXES and not SKIPPED & set(path.parts) and path.is_file():
                yield path
    yield from (path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix)


def test_no_former_word_is_used():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {', '.join(words)}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (words := former_words(line))
    ]
    assert found == [], f"{len(found)} lines; INSTEAD in test_vocabulary.py has the terms to use"


def test_no_class_has_a_former_name():
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files()
        if path.suffix in {".py", ".js", ".ts"}
        for name in re.findall(r"^(?:export )?class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if name in FORMER_CLASSES
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("self.held_until = 0", ["held until"]),
        ("def test_a_client_is_told(): ...", ["told"]),
        ("const wasToldTwice = 1;", ["Told"]),
        ("# What nobody holds is let go of.", ["nobody", "let go of"]),
        ("the key `{reactor:7kf}:pulse`", []),
        ("local key = PREFIX .. ':pulse'", []),
        ("local pulse = 1", ["pulse"]),
        ("its version tells one diff from another", []),
        ('await reactor("members", "nobody")', []),
        ("def recommend(): ...", []),
        ("an impatient client", []),
    ],
)
def test_former_words_are_found_also_inside_identifiers(line: str, words: list[str]):
    assert former_words(line) == words
