"""Where settings come from: flags before environment before file before default."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reactor.errors import SettingError
from reactor.settings import RoomRule, Settings, kinds, setting_fields
from reactor.settings.rooms import read_rules
from reactor.settings.security import is_loopback

PREFIX = "REACTOR_"
OF_COMMANDS = frozenset({"REACTOR_TOKEN"})
"""Variables that are no settings: `reactor watch` reads them."""


def load(flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Put the settings together.

    `flags` holds what was given on the command line, by the name of the setting; a missing one is left out or
    None. `environ` is `os.environ` unless given. A variable that is set but empty counts as not set.
    Raises SettingError with one line that names the setting as its writer knows it.
    """
    environ = os.environ if environ is None else environ
    given: dict[str, Any] = {}
    for item in setting_fields():
        kind: kinds.Kind = item.metadata["kind"]
        flag, variable = (flags or {}).get(item.name), environ.get(variable_name(item.name))
        if flag is not None:
            given[item.name] = kind.read(flag_name(item.name), flag)
        elif variable:
            given[item.name] = kind.read(variable_name(item.name), variable)
    from_file = read_file(given["config"]) if given.get("config") else {}
    return Settings(**{**from_file, **given})


def read_file(path: Path) -> dict[str, Any]:
    """Read a TOML file: settings by their names, and the table `rooms`. Raises SettingError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise SettingError(f"{path} is no text in UTF-8, so no TOML.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path} is no valid TOML: {error}.") from None
    known = {item.name: item.metadata["kind"] for item in setting_fields() if item.name != "config"}
    rules: tuple[RoomRule, ...] = ()
    given: dict[str, Any] = {}
    for key, value in table.items():
        if key == "rooms":
            rules = read_rules(value, f"{path}: ")
        elif key in known:
            given[key] = known[key].read(f"{path}: {key}", value)
        else:
            raise SettingError(f"{path}: {key} is no setting.{kinds.did_you_mean(key, [*known, 'rooms'])}")
    return {**given, "rooms": rules}


def advice(settings: Settings, environ: Mapping[str, str] | None = None) -> list[str]:
    """Name what is allowed and yet hardly meant, a sentence each; nothing of it stops the server."""
    environ = os.environ if environ is None else environ
    lines = [_unknown_variable(name) for name in sorted(environ) if _is_unknown(name)]
    if not (settings.pacemaker or settings.listener or settings.sweep_interval):
        lines.append("pacemaker, listener and sweep_interval are all off: nothing notices that a time is up.")
    if not (settings.asks_for_tokens or is_loopback(settings.host)):
        lines.append(
            f"host is {settings.host} and no token is asked for: whoever reaches this server can be "
            "anyone in any room. Set auth_secret or auth_jwks, or put it behind what knows its users."
        )
    if settings.admin_port is not None and not (settings.admin_tls or is_loopback(settings.admin_host)):
        lines.append(
            f"admin_host is {settings.admin_host}: the admin key travels there unencrypted; "
            "set tls_cert, keep it on 127.0.0.1, or let only a proxy with TLS reach it."
        )
    lines += _about_times("", settings.ttl, settings.ttl, settings.grace, settings.heartbeat_interval)
    for rule in settings.rooms:
        ttl = settings.ttl if rule.ttl is None else rule.ttl
        where = f' in rooms."{rule.match}"'
        lines += _about_times(where, ttl, rule.ttl, rule.grace, settings.heartbeat_interval)
    return lines


def variable_name(setting: str) -> str:
    """Give the environment variable of a setting."""
    return PREFIX + setting.upper()


def flag_name(setting: str) -> str:
    """Give the flag of a setting."""
    return "--" + setting.replace("_", "-")


def _about_times(
    where: str, ttl: float, own_ttl: float | None, own_grace: float | None, heartbeat: float
) -> list[str]:
    """Judge what was set at this place; what it takes over from elsewhere is judged there."""
    lines = []
    if own_ttl is not None and heartbeat > own_ttl / 2:
        lines.append(
            f"ttl{where} is {kinds.show_duration(own_ttl)}, less than two heartbeats of "
            f"{kinds.show_duration(heartbeat)}: one that is late ends a stay."
        )
    if own_grace is not None and own_grace > ttl:
        lines.append(f"grace{where} is longer than the ttl of {kinds.show_duration(ttl)}, and ends with it.")
    return lines


def _is_unknown(variable: str) -> bool:
    known = {variable_name(item.name) for item in setting_fields()}
    return variable.startswith(PREFIX) and variable not in known | OF_COMMANDS


def _unknown_variable(variable: str) -> str:
    near = kinds.nearest(variable.removeprefix(PREFIX), [item.name for item in setting_fields()])
    hint = f" Did you mean {variable_name(near)}?" if near else ""
    return f"{variable} is no setting and does nothing.{hint}"
