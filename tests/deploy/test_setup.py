"""scripts/setup with stand-ins for Python and uv: which of them it calls, and what it shows and repeats."""

import os
import pty
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
echo "python $*" >>"$CALLS"
case "$*" in
*"-m venv .venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*"-r requirements.lock"*)
    for name in one two three; do echo "Collecting $name"; sleep 0.3; done
    [ -z "${FAIL:-}" ] || { echo "ERROR: no such version"; exit 1; } ;;
esac
"""
UV = """#!/bin/sh
echo "uv $*" >>"$CALLS"
case "$*" in venv*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;; esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what the script needs."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "requirements.lock").write_text("one==1\ntwo==2\nthree==3\n")
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "python3", PYTHON)
    return tmp_path


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def run(clone: Path, **environment: str) -> tuple[int, str, list[str]]:
    """Run the script in a terminal; its exit status, its output, and the calls of the stand-ins."""
    calls = clone / "calls"
    calls.write_text("")
    terminal, end = pty.openpty()
    try:
        done = subprocess.run(
            [clone / "scripts" / "setup"], check=False, stdout=end, stderr=end, timeout=PATIENCE,
            env={"PATH": f"{clone / 'bin'}:/usr/bin:/bin", "CALLS": str(calls), **environment},
        )  # fmt: skip
        os.set_blocking(terminal, False)
        output = ""
        with suppress(BlockingIOError):
            output = os.read(terminal, 65536).decode()
    finally:
        os.close(end)
        os.close(terminal)
    return done.returncode, output, calls.read_text().splitlines()


def test_the_first_run_shows_its_progress_and_the_next_one_installs_nothing(clone: Path):
    status, output, calls = run(clone)
    assert status == 0, output
    assert "Installing 3 packages" in output
    assert " of 3 packages" in output
    assert output.rstrip().endswith("Installed.")
    assert sum("--require-hashes -r requirements.lock" in call for call in calls) == 1
    assert run(clone)[1:] == ("", [])


def test_a_failed_installation_shows_why_and_is_repeated(clone: Path):
    status, output, _ = run(clone, FAIL="1")
    assert status == 1
    assert "ERROR: no such version" in output
    assert "Installed." not in output
    assert run(clone)[0] == 0


def test_uv_is_used_where_it_is_present(clone: Path):
    program(clone / "bin" / "uv", UV)
    status, output, calls = run(clone)
    assert status == 0, output
    assert [call.split()[:3] for call in calls] == [
        ["uv", "venv", "--quiet"], ["uv", "pip", "install"], ["uv", "pip", "install"],
    ]  # fmt: skip
