"""Secrets in files, as Docker, Kubernetes and systemd provide them: `auth_secret_file` for `auth_secret`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reactor.errors import SettingError

SECRET_FILES = {
    name: f"{name}_file"
    for name in ("auth_secret", "redis_url", "webhook_urls", "webhook_secrets", "admin_key")
}
"""The setting that names the file of each secret."""
PASSWORD_FILE = "redis_password_file"  # noqa: S105 - the name of a setting
"""The setting that names the file with the password of `redis_url`."""

_MAX_SIZE = 65_536


def read_secret(setting: str, path: Path) -> str:
    """Return what a file holds, without the line end that most editors add. Raises SettingError."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_SIZE + 1)
        text = content.decode()
    except OSError as error:
        raise SettingError(f"{setting} {path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise SettingError(f"{setting} {path} is not text in UTF-8.") from None
    if len(content) > _MAX_SIZE:
        raise SettingError(f"{setting} {path} is larger than {_MAX_SIZE} bytes: it is not a secret.")
    return text.rstrip("\r\n")


def merge(sources: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge settings by name; later sources override, and a secret there also the file of one before.

    Raises SettingError where one source gives both, or a password beside a URL that has one.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        for name, file_name in SECRET_FILES.items():
            if name in source and file_name in source:
                raise SettingError(f"{name} and {file_name} are both set: keep one of them.")
            if name in source or file_name in source:
                merged.pop(name, None)
                merged.pop(file_name, None)
        merged |= source
    return merged


def with_password(url: str | None, path: Path) -> str:
    """Return the URL of a Redis with the password of a file. Raises SettingError."""
    if url is None:
        raise SettingError(
            f"{PASSWORD_FILE} is set, but redis_url is not: it names the Redis of the password."
        )
    scheme, _, rest = url.partition("://")
    place, slash, path_and_options = rest.partition("/")
    user, _, hosts = place.rpartition("@")
    if ":" in user:
        return url  # with the password, which was added to it before
    password = quote(read_secret(PASSWORD_FILE, path), safe="")
    return f"{scheme}://{user}:{password}@{hosts}{slash}{path_and_options}"


def has_password(url: str) -> bool:
    """Whether the URL of a Redis has a password."""
    return ":" in url.partition("://")[2].partition("/")[0].rpartition("@")[0]
