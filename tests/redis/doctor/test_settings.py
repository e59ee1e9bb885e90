"""Settings that are valid, and yet dangerous or probably a mistake."""

import os
from pathlib import Path

import pytest

from reactor.doctor.checks.settings import settings
from reactor.settings import Settings
from reactor.settings.load import load
from tests.support.certificates import write_certificate
from tests.support.signing import public_jwk, write_jwks


@pytest.mark.parametrize(
    ("env", "severity", "words"),
    [
        ({}, "ok", "nothing dangerous"),
        ({"REACTOR_TLL": "5"}, "problem", "REACTOR_TLL is not a setting"),
        (
            {"REACTOR_TTL": "100s", "REACTOR_HEARTBEAT_INTERVAL": "60s"},
            "problem",
            "less than two intervals",
        ),
        ({"REACTOR_TTL": "60s"}, "problem", "the timers of hidden pages run once a minute"),
        ({"REACTOR_HOST": "0.0.0.0"}, "problem", "as any user"),
        (
            {"REACTOR_HOST": "0.0.0.0", "REACTOR_AUTH_SECRET": "x" * 32},
            "note",
            "tokens are sent in clear text",
        ),
        ({"REACTOR_ORIGINS": "*"}, "problem", "any web page"),
        ({"REACTOR_MESSAGES_PER_SECOND": "0"}, "note", "no limit"),
        ({"REACTOR_LEASE": "500ms"}, "note", "taken for a dead one"),
        ({"REACTOR_AUTH_JWKS": "/no/such", "REACTOR_AUTH_AUDIENCE": "a"}, "problem", "cannot be read"),
        ({"REACTOR_AUTH_JWKS": "/dev/null", "REACTOR_AUTH_AUDIENCE": "a"}, "problem", "is not JSON"),
        ({"REACTOR_AUTH_HOOK": "no_such_module:f"}, "problem", "cannot be imported"),
        ({"REACTOR_PEOPLE_HOOK": "no_such_module:f"}, "problem", "cannot be imported"),
        ({"REACTOR_REDIS_URL": "rediss://r?ssl_cert_reqs=none"}, "problem", "the password included"),
        ({"REACTOR_REDIS_URL": "rediss://r?ssl_check_hostname=no"}, "problem", "ssl_check_hostname=no"),
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


@pytest.mark.parametrize(
    ("days", "found"), [(-1, ("problem", "has expired")), (3, ("note", "expires in")), (60, None)]
)
def test_the_end_of_the_certificate_is_found(tmp_path: Path, days: int, found: tuple[str, str] | None):
    cert, key = write_certificate(tmp_path, "one", days=days)
    findings = [one for one in settings(Settings(tls_cert=cert, tls_key=key)) if one.what == "tls_cert"]
    assert [(one.severity, found is not None and found[1] in one.found) for one in findings] == (
        [(found[0], True)] if found else []
    )


def test_public_keys_without_an_audience_are_found(tmp_path: Path):
    (one,) = settings(Settings(auth_jwks=write_jwks(tmp_path / "jwks.json", public_jwk("EdDSA"))))
    assert "auth_audience is not" in one.found


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("encrypted", "is encrypted"),
        ("of another", "KEY_VALUES_MISMATCH"),
        ("no key", "are not a certificate and its key"),
        ("missing", "cannot be read"),
        ("not valid yet", "is not valid yet"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_found(tmp_path: Path, fault: str, words: str):
    password = b"secret" if fault == "encrypted" else None
    cert, key = write_certificate(tmp_path, "one", password, begins=1 if fault == "not valid yet" else -9)
    if fault == "of another":
        (tmp_path / "other").mkdir()
        _, key = write_certificate(tmp_path / "other", "two")
    elif fault == "no key":
        key.write_text("nonsense")
    elif fault == "missing":
        key.unlink()
    (one,) = settings(Settings(tls_cert=cert, tls_key=key))
    assert (one.what, one.severity) == ("tls_cert", "problem")
    assert words in one.found
