"""Bare echo servers: the upper limit of what the language allows, without any work.

usage: python -m scripts.benchmarks.gateway.echo_servers websockets | picows
"""

import asyncio
import json
import os
import signal
import sys
from typing import Any

import picows
import uvloop
from websockets.asyncio.server import ServerConnection, serve

from scripts.benchmarks.running import allow_many_files


class _Echo(picows.WSListener):
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.TEXT:
            transport.send(picows.WSMsgType.TEXT, frame.get_payload_as_bytes())


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


class _Input(asyncio.Protocol):
    def connection_lost(self, _exc: Exception | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


async def _serve(kind: str) -> None:
    server: Any
    if kind == "picows":
        server = await picows.ws_create_server(lambda _request: _Echo(), "127.0.0.1", 0)
    else:
        server = await serve(_echo, "127.0.0.1", 0, compression=None)
    await asyncio.get_running_loop().connect_read_pipe(_Input, sys.stdin)
    print(json.dumps({"port": next(iter(server.sockets)).getsockname()[1]}), flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    allow_many_files()
    uvloop.run(_serve(sys.argv[1]))
