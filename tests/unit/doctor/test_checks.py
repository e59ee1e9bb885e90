"""The registry of the doctor's checks: a module in the folder is enough."""

import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from reactor.backend.target import parse_url
from reactor.doctor import checks
from reactor.doctor.deployment import Deployment
from reactor.settings import Settings

NEW_CHECK = """
from reactor.doctor.checks import deployment_check, settings_check
from reactor.doctor.finding import Subject

@deployment_check(order=-1)
def of_deployment(deployment):
    yield Subject("new", "deployment").ok(deployment.target.kind)

@settings_check(order=1000)
def of_settings(settings):
    yield Subject("new", "settings").ok(settings.namespace)
"""


def test_a_new_module_in_the_folder_is_a_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checks._load()  # the present modules register only once, so before the registry is replaced
    (tmp_path / "new.py").write_text(NEW_CHECK)
    monkeypatch.setattr(checks, "__path__", [*checks.__path__, str(tmp_path)])
    monkeypatch.setattr(checks, "_deployment_checks", dict(checks._deployment_checks))
    monkeypatch.setattr(checks, "_settings_checks", dict(checks._settings_checks))
    monkeypatch.delitem(sys.modules, "reactor.doctor.checks.new", raising=False)
    checks._load.cache_clear()
    try:
        settings = Settings(namespace="chat")
        about_settings = checks.check_settings(settings)
        about_deployment = checks.check_deployment(Deployment(parse_url("redis://h"), settings))
    finally:
        checks._load.cache_clear()
        sys.modules.pop("reactor.doctor.checks.new", None)
    assert (about_deployment[0].check, about_deployment[0].found) == ("new", "single")
    assert (about_settings[-1].check, about_settings[-1].found) == ("new", "chat")


def test_every_module_in_the_folder_registers_a_check():
    checks._load()
    registered = {function.__module__ for function in (*checks._deployment_checks, *checks._settings_checks)}
    modules = {f"{checks.__name__}.{module.name}" for module in iter_modules(checks.__path__)}
    assert {import_module(name).__name__ for name in modules} == registered


def test_no_two_checks_have_the_same_place_in_the_report():
    checks._load()
    for registry in (checks._deployment_checks, checks._settings_checks):
        assert len(set(registry.values())) == len(registry)
