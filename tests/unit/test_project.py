"""The project's own files say the same thing, and the tests run as they say."""

import asyncio
import re
import tomllib

import pytest
import uvloop

import reactor
from tests.support.command import ROOT


async def test_tests_run_on_uvloop():
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == reactor.__version__
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-test.lock"])
def test_lock_files_hold_hashes_and_no_address(lock):
    text = (ROOT / lock).read_text()
    assert "://" not in text
    names = re.findall(r"^[a-z0-9]\S*==\S+", text, re.MULTILINE)
    assert len(names) > 15
    assert len(re.findall(r"^[a-z0-9].*\\\n    --hash=sha256:", text, re.MULTILINE)) == len(names)


def test_both_lock_files_agree_and_hold_what_the_project_asks_for():
    locked = [
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-test.lock")
    ]
    assert locked[0].items() <= locked[1].items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        assert re.split(r"[\[<>=;]", requirement)[0] in locked[0]
    for extra in project["optional-dependencies"].values():
        for requirement in extra:
            assert re.split(r"[\[<>=;]", requirement)[0] in locked[1]
