"""The documents are tests: their Python runs, and what they name exists."""

import json
import re
import textwrap
import tomllib
from typing import Any, get_args

import anyio
import pytest

from reactor.cli import main
from reactor.presence.api import Presence
from reactor.protocol.closing import CloseCode
from reactor.protocol.messages import ErrorCode
from reactor.protocol.reasons import REASONS
from reactor.protocol.requests import Request
from reactor.settings import Settings, setting_fields
from reactor.settings.rooms import read_rules
from scripts.benchmarks.gateway.tables import markdown, put_into
from tests.docs.documents import EVERYTHING, PATHS, ROOT, blocks, document, example, section
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until


async def run(block: str, said: list[tuple[Any, ...]]) -> None:
    """Run a block that awaits; what it prints is collected."""
    body = textwrap.indent(block, "    ")
    names: dict[str, Any] = {"print": lambda *words: said.append(words)}
    exec(f"async def block():\n{body}", names)
    await names["block"]()


def test_the_table_for_back_ends_has_every_method_of_presence() -> None:
    table = section("reactor/client/README.md", "## Presence, for back ends")
    methods = {name for name, method in vars(Presence).items() if name[0] != "_" and callable(method)} - {
        "open"
    }
    assert {"revoke", "erase", "watch_users", "say"} <= methods
    assert {name for name in methods if f".{name}(" not in table} == set()


async def test_the_inbox_shows_when_users_were_seen(bundled_server: Server) -> None:
    said: list[tuple[Any, ...]] = []
    async with served(bundled_server) as node, RawClient.connect(node) as bob:
        await bob.join("lobby", "7")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        await bob.join("lobby", "42")
        inbox = example("inbox").replace("redis://localhost:6379", bundled_server.url)
        await run(inbox.replace('["7", "42"]', '["7", "42", "unknown"]'), said)
        (seen,) = bundled_server.control.scan_iter("*:seen", count=1000)
        for minutes in (1, 4):
            bundled_server.control.zincrby(seen, -60_000 * minutes, "7")
            await run(inbox, said)
    assert said[:3] == [("7", "seen just now"), ("42", "online"), ("unknown", "offline")]
    assert said[3::2] == [("7", "seen a minute ago"), ("7", "seen 5 minutes ago")]


async def test_the_python_client_example_sees_joins_and_leaves(bundled_server: Server) -> None:
    said: list[tuple[Any, ...]] = []
    async with served(bundled_server) as node, anyio.create_task_group() as tasks:
        block = example("client").replace("127.0.0.1:8765", f"127.0.0.1:{node.gateway.port}")
        tasks.start_soon(run, block, said)
        await until(lambda: said)
        async with RawClient.connect(node) as bob:
            there = await bob.join("lobby", "7", username="Bob")
            assert there["members"][0]["data"] == {"mood": "blue"}
            await until(lambda: ("join", "Bob", None, 2) in said)
            await bob.ask("leave_room", "room:left", roomId="lobby")
        await until(lambda: ("leave", "Bob", "left", 1) in said)
        tasks.cancel_scope.cancel()
    # The own change is part of the first list, or sent right after it.
    events = [line for line in said if line[0] != "update"]
    assert events == [("sync", None, None, 1), ("join", "Bob", None, 2), ("leave", "Bob", "left", 1)]


async def test_the_back_end_example_asks_kicks_and_watches(bundled_server: Server) -> None:
    said: list[tuple[Any, ...]] = []
    async with (
        served(bundled_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        anyio.create_task_group() as tasks,
    ):
        await ann.join("lobby", "42", username="Ann", data={"n": 1})
        block = example("presence").replace("redis://localhost:6379", bundled_server.url)
        tasks.start_soon(run, block, said)
        force_leave = await ann.receive("room:force-leave")
        assert (force_leave["message"], force_leave["reason"]) == ("See you tomorrow.", "kicked")
        await until(lambda: len(said) == 3)
        await bob.join("lobby", "7")
        await until(lambda: len(said) == 4)
        tasks.cancel_scope.cancel()
    assert said == [("Ann", False, {"n": 1}), (1, True), ("sync", None, None), ("join", "7", None)]


def test_the_toml_example_is_a_file_of_settings() -> None:
    (text,) = blocks("toml", document("reactor/settings/README.md"))
    table = tomllib.loads(text)
    rules = read_rules(table.pop("rooms"), "reactor/settings/README.md")
    policy = Settings(**table, rooms=rules).policy("quiz-7")
    assert (policy.ttl, policy.grace, policy.max_members) == (120_000, 5_000, 50)


@pytest.mark.parametrize(
    "word",
    [
        *get_args(ErrorCode),
        *(str(code.value) for code in CloseCode),
        *(str(kind.__struct_config__.tag) for kind in get_args(Request)),
    ],
)
def test_the_protocol_document_has_every_word_of_the_wire(word: str) -> None:
    if word == "not_utf8":
        pytest.skip("never sent: the connection is closed")
    assert re.search(
        rf"[`| ]{re.escape(word)}[`,; |]",
        document("reactor/protocol/README.md") + document("reactor/gateway/README.md"),
    ), word


def test_the_settings_that_are_named_exist() -> None:
    table = section("reactor/settings/README.md", "## The most important settings")
    named = re.findall(r"`([a-z_]+)`", table)
    assert named
    assert set(named) <= {item.name for item in setting_fields()}


def test_the_files_and_commands_that_are_named_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for path in PATHS:
        text, folder = document(path), (ROOT / path).parent
        for link in re.findall(r"\]\(((?!http|#|mailto)[^)#]+)(?:#[^)]*)?\)", text):
            assert (folder / link).exists(), f"{path}: {link}"
        for name in re.findall(r"`((?:scripts|tests|reactor|redis-conf)/[\w/.*-]+)`", text):
            assert list(ROOT.glob(name)), f"{path}: {name}"
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for command in set(
        re.findall(
            r"^\$? ?reactor (\w+)", "\n".join(re.findall(r"```.*?```", EVERYTHING, re.DOTALL)), re.MULTILINE
        )
    ):
        assert command in said


def test_every_reason_for_a_departure_is_explained() -> None:
    table = document("reactor/protocol/README.md").partition("| reason |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(REASONS)


def test_the_table_of_performance_is_that_of_the_last_run() -> None:
    result = json.loads((ROOT / "scripts/results/gateway.json").read_text(encoding="utf-8"))
    text = document("scripts/README.md")
    assert put_into(text, markdown(result)) == text
    assert "<!-- table: gateway -->\n| work |" in text
