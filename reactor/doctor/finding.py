"""What a check found: what it looked at, what is there, what is wanted, and how to fix it. PURE."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FixCommand:
    """A command for one server that fixes the problem until that server restarts. where: its address."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        """The command in the syntax of redis-cli."""
        return command_line(*self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor's report.

    check: the name of the check, which does not change. where: the server's address; empty for what concerns
    all of them. fix: a line of redis.conf, a command, or a sentence. command: the command that `--fix` sends,
    where one command is the fix. severity: a `note` is worth knowing, a `problem` has to be fixed.
    """

    check: str
    what: str
    found: str
    wanted: str = ""
    fix: str = ""
    severity: Severity = "ok"
    where: str = ""
    command: FixCommand | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What a check looks at, and where. Its methods make findings about it.

    found: what is there. fix: a sentence, or the words of a command that fixes it.
    """

    check: str
    what: str
    where: str = ""
    wanted: str = ""

    def ok(self, found: str, fix: str = "") -> Finding:
        """A finding that needs no fix. fix: still worth saying, for example why none is needed."""
        return self._finding("ok", found, fix)

    def note(self, found: str, fix: str | tuple[str, ...] = "") -> Finding:
        """A finding that is worth knowing."""
        return self._finding("note", found, fix)

    def problem(self, found: str, fix: str | tuple[str, ...] = "") -> Finding:
        """A finding that has to be fixed."""
        return self._finding("problem", found, fix)

    def rated(self, severity: Severity, found: str, fix: str | tuple[str, ...] = "") -> Finding:
        """A finding of this severity; the fix is left out where it is `ok`."""
        return self._finding(severity, found, "" if severity == "ok" else fix)

    def _finding(self, severity: Severity, found: str, fix: str | tuple[str, ...]) -> Finding:
        command = None if isinstance(fix, str) else FixCommand(where=self.where, words=fix)
        return Finding(
            check=self.check, what=self.what, where=self.where, wanted=self.wanted, severity=severity,
            found=found, fix=str(command or fix), command=command,
        )  # fmt: skip


def command_line(*words: str) -> str:
    """A command in the syntax of redis-cli: a word that is empty or has spaces is quoted."""
    return " ".join(f'"{word}"' if not word or " " in word else word for word in words)
