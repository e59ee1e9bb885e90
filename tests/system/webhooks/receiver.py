"""A webhook endpoint for tests: records every request, and answers as configured."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, NamedTuple

from tests.support.waiting import Changes

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Request(NamedTuple):
    """One request, and the status that it was answered with."""

    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.body)["events"]
        return found


class Receiver:
    """Answers each request with the next of `answers`, else with `failing`, else by `decide`; "" breaks off.

    Requests wait for their answer while `answering` is not set; `arrived` has them at once. decide: from a
    body to the answer.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[str] = []
        self.failing = ""
        self.decide: Callable[[bytes], str] = lambda _body: "204 No Content"
        self.arrived: list[Request] = []
        self.times: list[float] = []
        self.port = 0
        self.connections = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self._received = Changes()

    @classmethod
    @asynccontextmanager
    async def listening(cls) -> AsyncIterator["Receiver"]:
        receiver = cls()
        server = await asyncio.start_server(receiver._serve, "127.0.0.1", 0)
        receiver.port = server.sockets[0].getsockname()[1]
        try:
            yield receiver
        finally:
            server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    @property
    def accepted_sizes(self) -> list[int]:
        """Bytes of each body that it accepted."""
        return [len(request.body) for request in self.requests if 200 <= request.status < 300]

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """All events that it accepted, each as often as it did."""
        return [event for request in self.requests if 200 <= request.status < 300 for event in request.events]

    @property
    def summary(self) -> list[tuple[Any, ...]]:
        """(type, room, user or count) of each accepted event, in order."""
        return [(e["type"], e["roomId"], e.get("userId", e["count"])) for e in self.accepted]

    async def until(self, condition: Callable[[], Any]) -> None:
        await self._received.until(condition)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])
                }
                assert head[0] == "POST /hooks HTTP/1.1"
                body = await reader.readexactly(int(headers["content-length"]))
                self.times.append(monotonic())
                self.arrived.append(Request(headers, body, 0))
                self._received.notify()
                await self.answering.wait()
                answer = self.answers.pop(0) if self.answers else self.failing or self.decide(body)
                if not answer:
                    self.requests.append(Request(headers, body, 0))
                    writer.transport.abort()
                    return
                writer.write(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
                self.requests.append(Request(headers, body, int(answer[:3])))
                self._received.notify()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def webhook_settings(*receivers: Receiver, **options: Any) -> dict[str, Any]:
    """Settings that send to these receivers."""
    urls = tuple(receiver.url for receiver in receivers)
    return {"webhook_urls": urls, "webhook_secrets": (SECRET,), "webhook_private": True} | options
