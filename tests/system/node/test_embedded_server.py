"""A node whose embedded server dies starts it again, and its members are present again."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from reactor.backend import embedded
from reactor.backend.embedded import running_urls
from reactor.server.process import serve_node
from reactor.settings import Settings
from tests.support.raw_client import RawClient


@pytest.fixture(autouse=True)
def mistakes() -> None:
    """Instead of that of the folder: the server's death is logged as an error."""


async def test_after_the_death_of_the_embedded_server_members_are_present_again() -> None:
    with structlog.testing.capture_logs() as logs:
        async with (
            serve_node(Settings(port=0, drain_seconds=0, lease=1.0)) as node,
            RawClient.connect(node) as ann,
            RawClient.connect(node) as bob,
        ):
            await ann.join("lobby", "ann", data={"n": 1})
            await bob.join("lobby", "bob")
            folder = Path(running_urls()[0].removeprefix("unix://")).parent
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
            await ann.receive("service:degraded")
            await ann.receive("service:restored")
            listed = await ann.ask("room:members", "room:members", roomId="lobby")
            assert {m["userId"]: m.get("data") for m in listed["members"]} == {"ann": {"n": 1}, "bob": None}
            assert not [left for diff in ann.of("room:diff") for left in diff["left"]]
            assert node.readiness.status()[0]
    (line,) = (line for line in logs if line["event"] == "embedded_server_ended")
    assert "--redis-url" in line["fix"]


async def test_an_embedded_server_that_cannot_be_started_again_is_tried_until_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual, refused = embedded.spawn, 0

    def spawn(*arguments: Any) -> Any:
        nonlocal refused
        if refused < 2:
            refused += 1
            raise OSError(errno.ENOENT, "No such file or directory: valkey-server")
        return usual(*arguments)

    with structlog.testing.capture_logs() as logs:
        async with (
            serve_node(Settings(port=0, drain_seconds=0, lease=1.0)) as node,
            RawClient.connect(node) as ann,
        ):
            await ann.join("lobby", "ann")
            folder = Path(running_urls()[0].removeprefix("unix://")).parent
            monkeypatch.setattr(embedded, "spawn", spawn)
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
            await ann.receive("service:restored")
            assert refused == 2
            assert node.readiness.status()[0]
    lines = [line for line in logs if line["event"] == "embedded_server_ended"]
    assert len(lines) == 3
    assert "No such file" in lines[-1]["last_line"]
