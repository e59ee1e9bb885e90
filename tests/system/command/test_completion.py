"""The scripts of `reactor completion`, run by their shells."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.command import reactor
from tests.support.waiting import PATIENCE


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    answer = reactor("completion", "bash")
    assert (answer.code, answer.err) == (0, "")
    path = tmp_path_factory.mktemp("completion") / "reactor"
    path.write_text(answer.out)
    return path


def completed(script: Path, line: str) -> set[str]:
    """The completions that bash offers at the end of a line."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    done = subprocess.run(
        ["bash", "--norc", "-euc", f"""
            set +eu
            source "$0"
            COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1} COMP_LINE='{line}' COMP_POINT={len(line)}
            $(complete -p reactor | sed 's/.*-F \\([^ ]*\\).*/\\1/') reactor '{words[-1]}' '{words[-2]}'
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """, script],
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands(script: Path):
    assert completed(script, "reactor do") == {"doctor"}
    assert {"serve", "rooms", "members", "kick", "departures", "watch", "doctor"} <= completed(
        script, "reactor "
    )


def test_bash_completes_flags(script: Path):
    assert completed(script, "reactor doctor --fi") == {"--fix"}
    assert completed(script, "reactor serve --max-mess") == {"--max-message"}
    assert "--follow" in completed(script, "reactor departures --")
    assert "--follow" not in completed(script, "reactor rooms --")


def test_bash_completes_shells(script: Path):
    assert completed(script, "reactor completion ") == {"bash", "zsh", "fish"}


@pytest.mark.parametrize(("shell", "check"), [("zsh", "-n"), ("fish", "--no-execute")])
def test_zsh_and_fish_scripts_are_valid(shell: str, check: str, tmp_path: Path):
    answer = reactor("completion", shell)
    assert answer.code == 0
    assert {"zsh": "#compdef reactor", "fish": "complete -c reactor"}[shell] in answer.out
    if shutil.which(shell):
        (tmp_path / "script").write_text(answer.out)
        subprocess.run([shell, check, tmp_path / "script"], check=True, timeout=PATIENCE)


def test_an_unknown_shell_is_rejected():
    assert reactor("completion", "tcsh").code == 2
