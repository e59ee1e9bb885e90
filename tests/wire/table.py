"""The table of transcripts, and what stands for what in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Step = dict[str, Any]
Message = dict[str, Any]

_TABLE = json.loads((Path(__file__).parent / "transcripts.json").read_text(encoding="utf-8"))
_PEOPLE: dict[str, Any] = _TABLE["people"]
_TYPICAL: dict[str, Any] = {
    "$time": 1_764_000_000_000,
    "$duration": 3_600_000,
    "$until": 1_764_000_600_000,
    "$wait": 600_000,
    "$limits": {"message": 65536, "data": 4096, "id": 256},
}


def transcripts(party: str) -> list[Any]:
    """Those that are for the `server` or for `clients`, as parameters of a test."""
    return [
        pytest.param({**one, "steps": list(_steps(one["steps"]))}, id=one["name"])
        for one in _TABLE["transcripts"]
        if one.get("only", party) == party
    ]


def _steps(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        if "scene" in step:
            yield from _steps(_TABLE["scenes"][step["scene"]])
        else:
            yield {key: _with_people(value) if key in "<>" else value for key, value in step.items()}


def _with_people(message: Message) -> Message:
    return {
        key: [_PEOPLE.get(one, one) if isinstance(one, str) else one for one in value]
        if key in {"members", "joined", "updated"} and isinstance(value, list)
        else [_with_people(one) for one in value]
        if key == "diffs"
        else value
        for key, value in message.items()
    }


class Values:
    """What the texts that begin with $ stand for in one run of a transcript."""

    def __init__(self, known: dict[str, Any] | None = None) -> None:
        self._known = dict(known or {})

    def check(self, expected: Any, actual: Any) -> None:
        """Fail unless the message is as expected; a new name is bound to the value in its place."""
        self._check(expected, actual, f"{json.dumps(actual)} for {json.dumps(expected)}")

    def _check(self, expected: Any, actual: Any, where: str) -> None:
        if isinstance(expected, str) and expected.startswith("$"):
            if expected == "$any":
                return
            if expected in _TYPICAL:
                assert type(actual) is type(_TYPICAL[expected]), where
            elif expected == "$text":
                assert isinstance(actual, str), where
                assert actual, where
            else:
                assert self._known.setdefault(expected, actual) == actual, where
        elif isinstance(expected, dict) and isinstance(actual, dict):
            expected = _without_absent(expected, actual)
            assert expected.keys() == actual.keys(), where
            for key, value in expected.items():
                self._check(value, actual[key], where)
        elif isinstance(expected, list) and isinstance(actual, list):
            assert len(expected) == len(actual), where
            for one, other in zip(expected, actual, strict=True):
                self._check(one, other, where)
        else:
            assert expected == actual, where
            assert type(expected) is type(actual), where

    def fill(self, expected: Any) -> Any:
        """Return a message with each name replaced by its value, or by one made up here."""
        if isinstance(expected, dict):
            return {key.removesuffix("?"): self.fill(value) for key, value in expected.items()}
        if isinstance(expected, list):
            return [self.fill(value) for value in expected]
        if not isinstance(expected, str) or not expected.startswith("$"):
            return expected
        if expected in _TYPICAL:
            return _TYPICAL[expected]
        return self._known.setdefault(expected, expected.removeprefix("$"))


def _without_absent(expected: Message, actual: Message) -> Message:
    """What is expected, without those fields that may be left out and are."""
    return {
        key.removesuffix("?"): value
        for key, value in expected.items()
        if not key.endswith("?") or key.removesuffix("?") in actual
    }
