"""What the README shows of the admin port works as it stands, and its tables are whole."""

import json
import os
import re
import shutil
import subprocess
from typing import Any

import pytest
from anyio import to_thread

from reactor.admin import handlers, key_verifier, parameters
from reactor.admin.handlers import AdminHandlers
from reactor.admin.routes import operations
from reactor.presence import rules
from reactor.server.metrics import Metrics
from tests.docs.documents import document
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import PATIENCE
from tests.system.admin.json_schema import path_of
from tests.system.admin.serving import KEY, admin_served
from tests.system.metrics.test_metrics import Read

SECTION = document("reactor/admin/README.md")
COMMANDS = re.findall(r"^\| [^|]+ \| `(admin [^`]+)` \|$", SECTION, re.MULTILINE)


def run(command: str, port: int | None) -> Any:
    """Run one of its commands in a shell, by the function that it gives there."""
    function = re.search(r"<!-- run: admin -->\n```sh\n(.*?)```", SECTION, re.DOTALL)
    assert function is not None
    script = f"{function[1].replace(':9000', f':{port}')}\n{command}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": os.environ["PATH"], "REACTOR_ADMIN_KEY": KEY},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return json.loads(done.stdout)


def ends_a_connection(command: str) -> int:
    """Sorts the commands that end the connections of the test behind all others."""
    return ("members/42" in command and "DELETE" in command) + 2 * ("/drain" in command)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on PATH")
async def test_each_command_of_its_table_does_what_it_says(bundled_server: Server) -> None:
    async with (
        admin_served(bundled_server) as (node, _),
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "42", username="Ann")
        await bob.join("lobby", "7")
        answers: list[Any] = []
        for command in sorted(COMMANDS, key=ends_a_connection):
            answers.append(await to_thread.run_sync(run, command, node.settings.admin_port))
            assert "code" not in answers[-1], (command, answers[-1])
        assert (await ann.receive("room:message"))["data"] == {"text": "Tea?"}
        assert (await ann.receive("room:force-leave"))["message"] == "See you."
        assert await ann.closed() == 4003


async def test_its_table_names_every_route(bundled_server: Server) -> None:
    named = set()
    async with served(bundled_server) as node:
        table = operations(AdminHandlers(node))
    paths = {one.path for one in table}
    for command in COMMANDS:
        method = re.search(r"-X (\w+)", command)
        path = re.search(r"(/v1/[^ ?']+)", command)
        assert path is not None
        usual = "POST" if " -d " in command else "GET"
        named.add((method[1] if method else usual, path_of(path[1], paths)))
    assert named == {(one.method, one.path) for one in table}


async def test_its_table_names_every_metric_and_its_labels(bundled_server: Server) -> None:
    table = SECTION.split("| metric | what |")[1]
    named = dict(re.findall(r"`(reactor_\w+)(?:\{([\w,]+)\})?`", table))
    async with served(bundled_server) as node:
        page, _ = await Metrics(node).page()
    families = Read(page.decode()).families
    ours = {
        f"{name}_total" if one.type == "counter" else name
        for name, one in families.items()
        if name.startswith("reactor")
    }
    assert set(named) == ours
    for name, labels in named.items():
        samples = families[name.removesuffix("_total")].samples
        there = {label for sample in samples for label in sample.labels} - {"le"}
        assert not samples or there == set(labels.split(",")) - {""}, name


def test_its_figures_are_those_of_the_code() -> None:
    assert f"after {key_verifier.WRONG_KEY_DELAY} s" in SECTION
    assert f"more than {key_verifier.MAX_WRONG_PER_MINUTE} wrong keys a minute" in SECTION
    assert f"more than {parameters.BODY_TIMEOUT:.0f} s, or than {handlers.MAX_BODY // 1024} KiB" in SECTION
    assert f"{rules.MAX_RULES:,} rooms have settings" in SECTION
