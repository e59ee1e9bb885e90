"""What a check found: what it looked at, what is there, what is wanted, and what mends it. PURE."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """A command for one server that mends the matter at once, until that server restarts."""

    where: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        """The command as redis-cli takes it."""
        return command_line(*self.command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor's report.

    `check` is the stable name of the check, for scripts; `where` the server's address, empty for what
    concerns them all. `mend` is a line of redis.conf or a command. A `note` is worth knowing; a `problem` is
    to be mended.
    """

    check: str
    what: str
    found: str
    wanted: str = ""
    mend: str = ""
    severity: Severity = "ok"
    where: str = ""
    fix: Fix | None = None


def command_line(*words: str) -> str:
    """A command as redis-cli takes it: what is empty or has spaces in it stands in quotes."""
    return " ".join(f'"{word}"' if not word or " " in word else word for word in words)
