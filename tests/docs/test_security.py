"""What the README says of tokens is done here, and its table has every limit, status and code as they are."""

import re
import sys
import types
from typing import Any, get_args

import pytest

from reactor.protocol.closing import CloseCode
from reactor.protocol.messages import ErrorCode
from reactor.settings import setting_fields
from tests.docs.documents import example, section
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server

SECRET = "the secret of the README's reader, long enough"
SECTION = section("reactor/gateway/README.md", "## Every limit, status and code")
ROWS = [
    [cell.strip() for cell in row[1:-1].split("|")] for row in re.findall(r"^\|.*\|$", SECTION, re.MULTILINE)
]
LIMITING = {"Limits", "Tokens", "Connections"}


def names(cell: str) -> list[str]:
    return re.findall(r"`([a-z_]+)`", cell)


def loaded(name: str) -> dict[str, Any]:
    space: dict[str, Any] = {}
    exec(example(name), space)
    return space


async def test_a_token_of_the_readme_lets_its_user_in(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REACTOR_AUTH_SECRET", SECRET)
    token = loaded("token")["token_for"]("ann")
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        RawClient.connect(node, subprotocols=["reactor.json", f"reactor.token.{token}"]) as ann,
    ):
        assert (await ann.receive("auth:ok"))["userId"] == "ann"
        assert (await ann.answer("join_room", roomId="game-1"))["userId"] == "ann"
        assert (await ann.answer("join_room", roomId="secret"))["code"] == "forbidden"


async def test_the_hook_of_the_readme_lets_its_user_in(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
):
    module = types.ModuleType("hook_of_the_readme")
    module.__dict__.update(loaded("hook"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    async with (
        served(bundled_server, auth_hook="hook_of_the_readme:check") as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as eve,
    ):
        assert await ann.answer("auth", token="letmein") == {
            "type": "auth:ok",
            "userId": "ann",
            "id": "request 1",
        }
        assert (await ann.answer("join_room", roomId="lobby"))["type"] == "room:joined"
        assert (await eve.answer("auth", token="guess"))["message"] == "log in first"
        assert await eve.closed() == 4001


def test_its_rows_are_whole():
    assert len(ROWS) > 30
    assert {len(row) for row in ROWS} == {4}


@pytest.mark.parametrize("item", list(setting_fields()), ids=lambda item: item.name)
def test_every_limit_is_there_with_its_default(item: Any):
    group, kind = item.metadata["group"], item.metadata["kind"]
    rows = [row for row in ROWS if item.name in names(row[2])]
    if item.name == "compression":
        pytest.skip("limits nothing")
    if group not in LIMITING and not rows:
        pytest.skip("limits nothing")
    assert rows, f"{item.name} is missing"
    if item.default not in (None, ()) and rows[0][1]:
        assert kind.show(item.default) in re.split(r"[\s;(),]+", rows[0][1])


def test_no_setting_is_named_that_is_none():
    known = {item.name for item in setting_fields()} | {"max_members"}
    assert {name for row in ROWS[2:] for name in names(row[2])} <= known


@pytest.mark.parametrize("code", [code for code in get_args(ErrorCode) if code != "not_utf8"])
def test_every_error_is_there(code: str):
    assert any(code in names(f"{row[0]} {row[3]}") for row in ROWS)


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_is_there(code: CloseCode):
    closes = " ".join(row[0] + " " + row[3] for row in ROWS if "close" in f"{row[0]} {row[3]}")
    assert str(code.value) in closes


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 414, 426, 429, 431, 503])
def test_every_status_is_there(status: int):
    assert any(re.search(rf"\b{status}\b", f"{row[0]} {row[3]}") for row in ROWS)
