"""The README is a test: its Python runs, and what it names is there."""

import json
import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest

from reactor.cli import main
from reactor.protocol.closing import CloseCode, LeaveReason
from reactor.protocol.messages import ErrorCode
from reactor.protocol.requests import Request
from reactor.settings import Settings, setting_fields
from reactor.settings.rooms import read_rules
from scripts.benchmarks.gateway.tables import markdown, put_into
from tests.support.plain import until
from tests.support.running import RawClient, served
from tests.support.servers import Server

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def runnable(name: str) -> str:
    match = re.search(rf"<!-- run: {name} -->\n```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


async def run(block: str, said: list[tuple[Any, ...]]) -> None:
    """Run a block that awaits; what it prints is collected."""
    body = textwrap.indent(block, "    ")
    names: dict[str, Any] = {"print": lambda *words: said.append(words)}
    exec(f"async def block():\n{body}", names)
    await names["block"]()


async def test_the_client_of_the_readme_sees_who_comes_and_goes(bundled_server: Server) -> None:
    said: list[tuple[Any, ...]] = []
    async with served(bundled_server) as node, anyio.create_task_group() as tasks:
        block = runnable("client").replace("127.0.0.1:8765", f"127.0.0.1:{node.gateway.port}")
        tasks.start_soon(run, block, said)
        await until(lambda: said)
        async with RawClient.connect(node) as bob:
            there = await bob.join("lobby", "7", username="Bob")
            assert there["members"][0]["data"] == {"mood": "blue"}
            await until(lambda: ("join", "Bob", None, 2) in said)
            await bob.ask("leave_room", "room:left", roomId="lobby")
        await until(lambda: ("leave", "Bob", "left", 1) in said)
        tasks.cancel_scope.cancel()
    # The own change is part of the first list, or told right behind it.
    told = [line for line in said if line[0] != "update"]
    assert told == [("sync", None, None, 1), ("join", "Bob", None, 2), ("leave", "Bob", "left", 1)]


async def test_the_back_end_of_the_readme_asks_kicks_and_watches(bundled_server: Server) -> None:
    said: list[tuple[Any, ...]] = []
    async with (
        served(bundled_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        anyio.create_task_group() as tasks,
    ):
        await ann.join("lobby", "42", username="Ann", data={"n": 1})
        block = runnable("presence").replace("redis://localhost:6379", bundled_server.url)
        tasks.start_soon(run, block, said)
        farewell = await ann.hear("room:force-leave")
        assert (farewell["message"], farewell["reason"]) == ("See you tomorrow.", "kicked")
        await until(lambda: len(said) == 3)
        await bob.join("lobby", "7")
        await until(lambda: len(said) == 4)
        tasks.cancel_scope.cancel()
    assert said == [("Ann", False, {"n": 1}), (1, True), ("sync", None, None), ("join", "7", None)]


def test_its_toml_is_a_file_of_settings() -> None:
    (text,) = blocks("toml")
    table = tomllib.loads(text)
    rules = read_rules(table.pop("rooms"), "README.md")
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
def test_it_has_every_word_of_the_wire(word: str) -> None:
    if word == "not_utf8":
        pytest.skip("never sent: the connection is closed")
    assert re.search(rf"[`| ]{re.escape(word)}[`,; |]", README), word


def test_the_settings_it_names_are_there() -> None:
    table = README.split("The ones to know:")[1].split("What differs")[0]
    named = re.findall(r"`([a-z_]+)`", table)
    assert named
    assert set(named) <= {item.name for item in setting_fields()}


def test_the_files_and_commands_it_names_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    for path in re.findall(r"\]\(((?!http|#)[^)]+)\)", README) + re.findall(
        r"`((?:scripts|tests)/[\w/.*]+)`", README
    ):
        assert list(ROOT.glob(path)), path
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for command in set(
        re.findall(
            r"^\$? ?reactor (\w+)", "\n".join(re.findall(r"```.*?```", README, re.DOTALL)), re.MULTILINE
        )
    ):
        assert command in said


def test_every_reason_to_leave_is_explained_somewhere() -> None:
    for reason in (LeaveReason.DISCONNECTED, LeaveReason.INACTIVITY_TIMEOUT):
        assert reason in README


def test_its_table_of_performance_is_that_of_the_last_run() -> None:
    result = json.loads((ROOT / "scripts/results/gateway.json").read_text(encoding="utf-8"))
    assert put_into(README, markdown(result)) == README
    assert "<!-- table: gateway -->\n| work |" in README
