"""The README's receiver of webhooks takes what the server sends, and nothing else."""

import time
from typing import Any

import anyio
import httpx
import pytest
import uvicorn

from reactor.admin.uvicorn_server import SignallessServer
from tests.docs.documents import example
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server, free_port
from tests.support.waiting import until
from tests.system.webhooks.receiver import SECRET


async def test_the_receiver_of_the_readme_prints_what_happens(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REACTOR_WEBHOOK_SECRETS", SECRET)
    said: list[tuple[Any, ...]] = []
    names: dict[str, Any] = {"print": lambda *words: said.append(words)}
    exec(example("webhook"), names)
    port = free_port()
    receiver = SignallessServer(uvicorn.Config(names["app"], port=port, log_level="critical", lifespan="off"))
    url = f"http://127.0.0.1:{port}/hooks"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receiver.serve)
        await until(lambda: receiver.started)
        options = {"webhook_urls": url, "webhook_secrets": SECRET, "webhook_private": True}
        async with served(bundled_server, **options) as node, RawClient.connect(node) as ann:
            await ann.join("lobby", "42")
            await until(lambda: len(said) == 2)
        async with httpx.AsyncClient() as client:
            now = str(int(time.time()))
            forged = {"webhook-id": "m", "webhook-timestamp": now, "webhook-signature": "v1,AAAA"}
            assert (await client.post(url, headers=forged, content=b"{}")).status_code == 401
        receiver.should_exit = True
    assert said == [("room_occupied", "lobby", None, 1), ("member_joined", "lobby", "42", 1)]
