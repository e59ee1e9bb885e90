"""Secrets in files, in place of the environment, flags and the TOML file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reactor.errors import SettingError
from reactor.settings import Settings, setting_fields
from reactor.settings.load import load
from reactor.settings.secret_files import PASSWORD_FILE, SECRET_FILES

VALUES = {
    "auth_secret": "a secret of thirty-two bytes, or more",
    "redis_url": "redis://user:pass@redis.example:6379/2",
    "webhook_urls": "https://hooks.example/secret/path",
    "webhook_secrets": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "admin_key": "a-key-of-thirty-two-bytes-or-more!",
}

REQUIRED = {"webhook_urls": {"webhook_secrets": VALUES["webhook_secrets"]}}

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "secret"
        path.write_text(text)
        return path

    return write


def test_every_secret_can_come_from_a_file() -> None:
    secret = {item.name for item in setting_fields() if not item.repr}
    assert SECRET_FILES.keys() == VALUES.keys()
    assert secret == {*SECRET_FILES, *SECRET_FILES.values(), PASSWORD_FILE}


@pytest.mark.parametrize("name", SECRET_FILES)
@pytest.mark.parametrize("source", ["environment", "flag", "file", "code"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_gives_the_same_secret(name: str, source: str, end: str, write: Write, tmp_path: Path) -> None:
    path = str(write(VALUES[name] + end))
    required = REQUIRED.get(name, {})
    match source:
        case "environment":
            settings = load(required, {f"REACTOR_{name.upper()}_FILE": path})
        case "flag":
            settings = load(required | {f"{name}_file": path}, {})
        case "file":
            config = tmp_path / "reactor.toml"
            config.write_text(f'{name}_file = "{path}"')
            settings = load(required | {"config": str(config)}, {})
        case _:
            given: Any = REQUIRED.get(name, {}) | {f"{name}_file": path}
            settings = Settings(**given)
    plain: Any = REQUIRED.get(name, {}) | {name: VALUES[name]}
    assert getattr(settings, name) == getattr(Settings(**plain), name)
    assert getattr(replace(settings, workers=2), name) == getattr(settings, name)
    assert VALUES[name] not in repr(settings)


def test_the_source_with_precedence_decides_between_a_secret_and_a_file(write: Write) -> None:
    other = "x" * 40
    path = str(write(VALUES["auth_secret"]))
    environ = {"REACTOR_AUTH_SECRET": other}
    assert load({"auth_secret_file": path}, environ).auth_secret == VALUES["auth_secret"].encode()
    environ = {"REACTOR_AUTH_SECRET_FILE": path}
    assert load({"auth_secret": other}, environ).auth_secret == other.encode()
    with pytest.raises(SettingError, match="auth_secret and auth_secret_file are both set"):
        load({}, {"REACTOR_AUTH_SECRET_FILE": path, "REACTOR_AUTH_SECRET": other})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://redis.example", "redis://:p%2Fa%40s%3As@redis.example"),
        ("rediss://reader@redis.example:6380/1", "rediss://reader:p%2Fa%40s%3As@redis.example:6380/1"),
        ("redis+sentinel://a:1,b:2/main?sentinel_password=x", "redis+sentinel://:p%2Fa%40s%3As@a:1,b:2/main?sentinel_password=x"),
        ("unix:///run/redis.sock?db=3", "unix://:p%2Fa%40s%3As@/run/redis.sock?db=3"),
        ("redis://[::1]:6379", "redis://:p%2Fa%40s%3As@[::1]:6379"),
    ],
)  # fmt: skip
def test_the_password_of_redis_can_come_from_a_file(url: str, expected: str, write: Write) -> None:
    path = str(write("p/a@s:s\n"))
    settings = load({PASSWORD_FILE: path}, {"REACTOR_REDIS_URL": url})
    assert settings.redis_url == expected
    assert replace(settings, workers=2).redis_url == expected


def test_a_password_is_given_once_and_for_a_redis(write: Write) -> None:
    path = str(write("secret"))
    with pytest.raises(SettingError, match="redis_url has a password"):
        load({PASSWORD_FILE: path, "redis_url": "redis://:other@localhost"}, {})
    with pytest.raises(SettingError, match="redis_url is not"):
        load({PASSWORD_FILE: path}, {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"", "takes 32 bytes or more"),
        (b"too short", "takes 32 bytes or more"),
        (b"\xff" * 40, "not text in UTF-8"),
        (b"x" * 70_000, "larger than 65536 bytes"),
    ],
)
def test_a_file_without_a_usable_secret_gives_one_clear_line(
    content: bytes | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=words) as caught:
        load({}, {"REACTOR_AUTH_SECRET_FILE": str(path)})
    assert "auth_secret_file" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "too short" not in str(caught.value)
