"""Quantiles, and results as JSON files."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

_NUMBERS = re.compile(r"\[[\s\d.,null-]*\]")
"""A list of numbers, which is easier to read on one line."""


def quantile(values: Sequence[float], share: float) -> float:
    """Return the quantile by nearest rank; infinite values count."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON; infinite and missing figures become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(result), indent=1, allow_nan=False)
    path.write_text(_NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
