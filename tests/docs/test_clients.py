"""The README's page and its program for Node.js, each as it stands there."""

import re
from pathlib import Path

import anyio
import pytest
from playwright.async_api import expect

from tests.browser.page.browser import launched
from tests.browser.serving import files_of
from tests.docs.documents import document, example
from tests.js.tools import installed, node_program
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import PATIENCE


async def test_the_page_of_another_host_shows_who_is_in_the_room(bundled_server: Server, tmp_path: Path):
    block = example("page", "html")
    assert len(block.splitlines()) <= 15
    async with served(bundled_server) as node, launched() as browser:
        port = node.gateway.port
        (tmp_path / "page.html").write_text(block.replace("127.0.0.1:8765", f"127.0.0.1:{port}"))
        with files_of(tmp_path) as address:
            one, two = await browser.new_page(), await browser.new_page()
            problems: list[str] = []
            one.on("pageerror", lambda error: problems.append(str(error)))
            await one.goto(f"{address}/page.html")
            await expect(one.locator("#count")).to_have_text("1")
            await two.goto(f"{address}/page.html")
            for page in (one, two):
                await expect(page.locator("#count")).to_have_text("2")
                await expect(page.locator("li")).to_have_text(["Ann", "Ann"])
            async with RawClient.connect(node) as ann:
                await ann.join("lobby", "ann", username="<b>Ann</b>")
                await expect(one.locator("li").last).to_have_text("<b>Ann</b>")
            assert not problems


async def test_the_program_for_node_prints_departures(bundled_server: Server, tmp_path: Path):
    (tmp_path / "node_modules").symlink_to(installed())
    async with served(bundled_server) as node:
        program = tmp_path / "program.mjs"
        program.write_text(example("node", "js").replace(":8765", f":{node.gateway.port}"))
        async with await anyio.open_process(
            [node_program(), "--preserve-symlinks", str(program)], stderr=None
        ) as process:
            try:
                async with RawClient.connect(node) as bob:
                    await bob.join("lobby", "7", username="Bob")
                    await bob.receive("room:diff")  # the program has come in
                    await bob.ask("leave_room", "room:left", roomId="lobby")
                assert process.stdout is not None
                said = ""
                with anyio.fail_after(PATIENCE):
                    while "\n" not in said:
                        said += (await process.stdout.receive()).decode()
                assert said == "leave Bob left 1\n"
            finally:
                process.kill()


@pytest.mark.parametrize(
    "word", ["join", "leave", "update", "sync", "change", "message", "force-leave", "status"]
)
def test_every_kind_of_event_is_named(word: str):
    types = (Path(__file__).parents[2] / "reactor/js/index.d.ts").read_text(encoding="utf-8")
    assert re.search(rf'^  "?{word}"?: ', types.split("interface RoomEvents")[1], re.MULTILINE)
    assert f"`{word}`" in document("reactor/js/README.md")
