"""Gives a command the settings as flags, with their help, from the one table that settings are."""

import inspect
from collections.abc import Callable, Container
from typing import Annotated, Any

from cyclopts import Group, Parameter

from reactor.settings import kinds, setting_fields

ABOUT_SETTINGS = """
Each setting may also stand in the environment (`REACTOR_TTL=10m`), or in the file that `--config` names
(`ttl = "10m"`, and rules for rooms, as in `[rooms."lobby-*"]`). A flag wins over the environment, and the
environment over the file. A duration is 90 (seconds), 500ms, 15s, 10m, 6h or 1d; a size is 4096 (bytes),
64KiB or 1MiB.
"""


def with_settings(
    names: Container[str] | None = None, group: str | None = None, no_redis: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a function that takes `**flags` be called with settings as flags; all of them, or those named.

    The values arrive as text, None where a flag is not given, for `reactor.settings.load` to read: so a wrong
    value gets the same line wherever it stands. `group` puts all under one heading of the help; `no_redis`
    says there what it means when no Redis is named.
    """
    chosen = [item for item in setting_fields() if names is None or item.name in names]
    headings = {
        name: Group.create_ordered(name) for name in dict.fromkeys(_heading(item, group) for item in chosen)
    }
    parameters = []
    for item in chosen:
        kind: kinds.Kind = item.metadata["kind"]
        shown = Parameter(
            group=headings[_heading(item, group)],
            help=item.metadata["about"],
            metavar=kind.word,
            show_default=_default(item, no_redis),
            allow_leading_hyphen=True,
        )
        parameters.append(
            inspect.Parameter(
                item.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[str | None, shown],
            )
        )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(function)
        kept = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        function.__signature__ = own.replace(parameters=[*kept, *parameters])  # type: ignore[attr-defined]
        function.__annotations__ |= {one.name: one.annotation for one in parameters}
        return function

    return decorate


def _default(item: Any, no_redis: str) -> str:
    if item.name == "redis_url" and no_redis:
        return no_redis
    return str(
        item.metadata["none"] if item.default in (None, ()) else item.metadata["kind"].show(item.default)
    )


def _heading(item: Any, group: str | None) -> str:
    return group or str(item.metadata["group"])
