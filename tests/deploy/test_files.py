"""The files of scripts/deploy/ match the package: settings, paths, and the rules of systemd."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reactor.settings import setting_fields

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "scripts" / "deploy"
SETTINGS = {f"REACTOR_{item.name.upper()}" for item in setting_fields()}
COMPOSE_VARIABLES = {"REACTOR_IMAGE"}


FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_named_setting_exists(path: Path) -> None:
    named = set(re.findall(r"\bREACTOR_[A-Z_]*[A-Z]\b", path.read_text()))
    assert named <= SETTINGS | COMPOSE_VARIABLES


def test_dockerignore_lets_through_what_the_image_copies() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(allowed)
    assert all((ROOT / name).exists() for name in names)


def test_compose_mounts_and_builds_existing_files() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for mounted in re.findall(r"- (\.\./\S+?):", text):
        assert (DEPLOY / mounted).is_file()
    assert "dockerfile: scripts/deploy/Dockerfile" in text


def test_the_systemd_unit_is_valid_and_has_little_exposure(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not on PATH")
    unit = tmp_path / "reactor.service"
    command = Path(sys.executable).with_name("reactor")
    command = command if command.exists() else Path(sys.executable)
    unit.write_text(
        (DEPLOY / "reactor.service").read_text().replace("/opt/reactor/bin/reactor", str(command))
    )
    verified = subprocess.run(
        [analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert verified.stderr == ""
    assert verified.returncode == 0
    subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", unit], capture_output=True, check=True
    )
