"""Much data of one connection is parsed a part at a time, in turn with what others send."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from reactor.gateway import connection as connection_module
from reactor.gateway.connection import Connection
from reactor.gateway.context import GatewayContext
from reactor.protocol.intents import Refresh
from tests.support.certificates import trusting, write_certificate
from tests.support.gateway import Raw, Served, serving, text
from tests.support.waiting import until


def large(number: int) -> bytes:
    return text({"type": "room:heartbeat", "id": number, "more": "x" * 3000})


def context(served: Served) -> GatewayContext:
    manager = served.gateway._manager
    assert manager is not None
    return manager.context


async def acknowledged(client: Raw, number: int) -> list[int]:
    return [json.loads((await client.frame())[1])["id"] for _ in range(number)]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("budget", [16 * 1024 * 1024, 0])
async def test_every_message_is_answered_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls: bool, budget: int
):
    monkeypatch.setattr(connection_module, "MAX_UNREAD", budget)
    options: dict[str, Any] = {}
    trusted: ssl.SSLContext | None = None
    if tls:
        cert, key = write_certificate(tmp_path, "one")
        options, trusted = {"tls_cert": cert, "tls_key": key}, trusting(cert)
    async with serving(**options) as served:
        async with Raw(*await asyncio.open_connection("127.0.0.1", served.port, ssl=trusted)) as client:
            await client.shake_hands()
            for first in (0, 100, 200):
                small = text({"type": "room:heartbeat", "id": first + 99})
                client.write(*(large(number) for number in range(first, first + 99)), small)
            assert await acknowledged(client, 300) == list(range(300))
        assert context(served).unread == 0


async def test_a_flood_of_large_messages_delays_no_other_connection_by_all_of_it():
    async with serving() as served:
        flood, other = await served.raw(), await served.raw()
        async with flood, other:
            await until(lambda: len(served.handler.opened_) == 2)
            flood.write(*(large(number) for number in range(60)))
            other.write(text({"type": "room:heartbeat", "id": "other"}))
            await acknowledged(flood, 60)
            assert json.loads((await other.frame())[1])["id"] == "other"
            order = [intent.id for intent in served.handler.intents]
            assert order.index("other") < order.index(59)


async def test_what_a_closed_connection_has_sent_is_forgotten():
    async with serving() as served, await served.raw() as client:
        waiting = []

        def abort_at_the_fifth(connection: Connection, intent: Refresh) -> None:
            if intent.id == 5:
                waiting.append(context(served).unread)
                connection.abort()

        served.handler.act = abort_at_the_fifth
        client.write(*(large(number) for number in range(60)))
        assert await client.ended()
        await served.handler.until(lambda: served.handler.closed_)
        assert waiting[0] > 0
        assert context(served).unread == 0
        assert [intent.id for intent in served.handler.intents] == list(range(6))
