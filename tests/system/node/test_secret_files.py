"""Secrets in files are read again on SIGHUP, while clients stay connected."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.nodes import NodeProcess
from tests.support.servers import Server, free_port
from tests.support.signing import token
from tests.support.waiting import PATIENCE, until

FIRST, SECOND = "the first secret, of 32 bytes or more", "the second secret, of 32 bytes or more"


def bearer(secret: str) -> Any:
    value = token(secret=secret, exp=int(time.time()) + 600)
    return {"additional_headers": {"Authorization": f"Bearer {value}"}}


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_secrets_of_files_are_replaced_on_sighup(
    bundled_server: Server, tmp_path: Path, workers: int
) -> None:
    secret, key = tmp_path / "secret", tmp_path / "key"
    secret.write_text(FIRST + "\n")
    key.write_text("a-" * 20)
    port = free_port()
    options: dict[str, Any] = {
        "auth_secret_file": secret,
        "admin_key_file": key,
        "admin_port": port,
        "workers": workers,
    }
    async with (
        NodeProcess.start(bundled_server, **options) as node,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as admin,
        connect(f"ws://127.0.0.1:{node.port}/ws", **bearer(FIRST)) as early,
    ):
        url = f"ws://127.0.0.1:{node.port}/ws"

        async def status(value: str) -> int:
            return (await admin.get("/v1/rooms", headers={"X-API-Key": value})).status_code

        assert json.loads(await early.recv())["type"] == "auth:ok"
        assert await status("a-" * 20) == 200
        secret.write_text(SECOND)
        key.write_text("b-" * 20)
        node.send(signal.SIGHUP)
        await until(lambda: node.has_logged("settings_reloaded", times=workers))
        for _ in range(4 * workers):
            async with connect(url, **bearer(SECOND)) as late:
                assert json.loads(await late.recv())["type"] == "auth:ok"
        assert await status("b-" * 20) == 200
        assert await status("a-" * 20) == 401
        with pytest.raises(InvalidStatus):
            async with connect(url, **bearer(FIRST)):
                pass
        await early.send(json.dumps({"type": "room:heartbeat"}))
        assert json.loads(await early.recv())["type"] == "room:heartbeat:ack"


async def test_the_password_of_redis_is_replaced_on_sighup(bundled_server: Server, tmp_path: Path) -> None:
    control = bundled_server.control
    path = tmp_path / "password"
    path.write_text("first")
    control.execute_command("ACL", "SETUSER", "rotated", "on", ">first", "~*", "&*", "+@all")
    try:
        url = bundled_server.socket_url.replace("unix://", "unix://rotated@")
        options: dict[str, Any] = {"redis_url": url, "redis_password_file": path}
        async with (
            NodeProcess.start(bundled_server, **options) as node,
            connect(f"ws://127.0.0.1:{node.port}/ws") as client,
        ):
            path.write_text("second")
            control.execute_command("ACL", "SETUSER", "rotated", "resetpass", ">second")
            node.send(signal.SIGHUP)
            await until(lambda: node.has_logged("settings_reloaded"))
            for entry in control.client_list():
                if entry["user"] == "rotated":
                    control.client_kill(entry["addr"])
            await client.send(json.dumps({"type": "join_room", "roomId": "lobby", "userId": "ann"}))
            with anyio.fail_after(PATIENCE):
                while (message := json.loads(await client.recv()))["type"] != "room:joined":
                    if message["type"] == "error":
                        await anyio.sleep(0.2)
                        await client.send(
                            json.dumps({"type": "join_room", "roomId": "lobby", "userId": "ann"})
                        )
    finally:
        control.execute_command("ACL", "DELUSER", "rotated")
