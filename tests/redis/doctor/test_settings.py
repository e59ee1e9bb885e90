"""Settings that are valid, and yet dangerous or probably a mistake."""

import os

import pytest

from reactor.doctor.checks.settings import settings
from reactor.settings.load import load


@pytest.mark.parametrize(
    ("env", "severity", "words"),
    [
        ({}, "ok", "nothing dangerous"),
        ({"REACTOR_TLL": "5"}, "problem", "REACTOR_TLL is not a setting"),
        ({"REACTOR_TTL": "30s"}, "problem", "less than two intervals"),
        ({"REACTOR_HOST": "0.0.0.0"}, "problem", "as any user"),
        (
            {"REACTOR_HOST": "0.0.0.0", "REACTOR_AUTH_SECRET": "x" * 32},
            "note",
            "tokens are sent in clear text",
        ),
        ({"REACTOR_ORIGINS": "*"}, "problem", "any web page"),
        ({"REACTOR_MESSAGES_PER_SECOND": "0"}, "note", "no limit"),
        ({"REACTOR_LEASE": "500ms"}, "note", "taken for a dead one"),
        ({"REACTOR_AUTH_JWKS": "/no/such"}, "problem", "cannot be read"),
        (
            {"REACTOR_ADMIN_PORT": "9000", "REACTOR_ADMIN_HOST": "0.0.0.0", "REACTOR_ADMIN_KEY": "x" * 32},
            "problem",
            "admin key is sent",
        ),
        (
            {"REACTOR_PACEMAKER": "off", "REACTOR_LISTENER": "off", "REACTOR_SWEEP_INTERVAL": "0"},
            "problem",
            "all off",
        ),
    ],
)
def test_dangerous_settings_are_found(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], severity: str, words: str
):
    for name in list(os.environ):
        if name.startswith("REACTOR_"):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = list(settings(load()))
    assert [(finding.severity, words in finding.found) for finding in found] == [(severity, True)]
