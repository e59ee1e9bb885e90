"""The public names, and what type checkers know of a program that uses them."""

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import reactor
from reactor import errors

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("typed_program.py")
DOCUMENT = (ROOT / "reactor" / "client" / "README.md").read_text("utf-8")


def test_a_program_passes_a_strict_type_checker(tmp_path: Path):
    """mypy checks the program with the other tests; this is Pyright's checker."""
    pytest.importorskip("basedpyright")
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(
        json.dumps({"include": [str(PROGRAM)], "typeCheckingMode": "strict", "pythonVersion": "3.11"})
    )
    command = [sys.executable, "-m", "basedpyright", "-p", str(settings), "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _is_exception(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def test_every_exception_is_public_documented_and_of_one_base_class():
    declared = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert declared <= set(reactor.__all__)
    public = {name for name in reactor.__all__ if _is_exception(getattr(reactor, name))}
    assert all(issubclass(getattr(reactor, name), reactor.ReactorError) for name in public)
    assert {name for name in public if f"`{name}`" not in DOCUMENT} == set()


def test_every_public_name_loads_has_a_docstring_and_is_in_the_document():
    for name in reactor.__all__:
        value = getattr(reactor, name)
        if inspect.isclass(value):
            assert inspect.getdoc(value), name
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", DOCUMENT))))
    assert set(reactor.__all__) - {"__version__"} <= named


def test_names_for_type_checkers_are_those_that_load():
    source = Path(reactor.__file__).read_text("utf-8")
    typed = {line.split()[-1] for line in source.splitlines() if line.startswith("    from reactor.")}
    assert typed == set(reactor.__all__) - {"__version__"}
    for line in source.splitlines():
        if line.startswith("    from reactor."):
            _, module, _, name, *_ = line.split()
            assert getattr(importlib.import_module(module), name) is getattr(reactor, name)


def test_events_are_values_that_json_keeps():
    event = reactor.JoinEvent(kind="join", room_id="r", count=1, member=reactor.Member("ann", "Ann", 1, 1))
    assert msgspec.json.decode(msgspec.json.encode(event), type=reactor.JoinEvent) == event
    assert isinstance(event, reactor.RoomEvent)
