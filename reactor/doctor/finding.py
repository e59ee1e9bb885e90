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


@dataclass(frozen=True, slots=True)
class Subject:
    """What a check looks at, and where; it makes the findings of it, whose fields it explains."""

    check: str
    what: str
    where: str = ""
    wanted: str = ""

    def ok(self, found: str, mend: str = "") -> Finding:
        """It is as wanted, or nobody's business."""
        return self._finding("ok", found, mend)

    def note(self, found: str, mend: str | tuple[str, ...] = "") -> Finding:
        """It is worth knowing. mend: words, or a command that mends it at once."""
        return self._finding("note", found, mend)

    def problem(self, found: str, mend: str | tuple[str, ...] = "") -> Finding:
        """It is to be mended: by words, or at once by a command."""
        return self._finding("problem", found, mend)

    def judged(self, severity: Severity, found: str, mend: str | tuple[str, ...] = "") -> Finding:
        """It is as bad as that; what is ok needs no mending."""
        return self._finding(severity, found, "" if severity == "ok" else mend)

    def _finding(self, severity: Severity, found: str, mend: str | tuple[str, ...]) -> Finding:
        fix = None if isinstance(mend, str) else Fix(where=self.where, command=mend)
        return Finding(
            check=self.check, what=self.what, where=self.where, wanted=self.wanted, severity=severity,
            found=found, mend=str(fix or mend), fix=fix,
        )  # fmt: skip


def command_line(*words: str) -> str:
    """A command as redis-cli takes it: what is empty or has spaces in it stands in quotes."""
    return " ".join(f'"{word}"' if not word or " " in word else word for word in words)
