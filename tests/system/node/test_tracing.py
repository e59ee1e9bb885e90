"""Spans of joins and expiries, read back from the SDK's exporter in memory."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra reactor-presence[otel] is not installed")

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased

from reactor.admin import serving_admin
from reactor.errors import SettingError
from reactor.server.node import Node
from reactor.server.process import serve_node
from reactor.settings import Settings
from reactor.tracing.node_parts import Parts
from reactor.tracing.parts import traced_parts
from reactor.tracing.traces import DepartureIds, Traces, provider_with
from tests.docs.documents import section
from tests.support.command import ROOT
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

EXPIRY = {"room.expiry", "room.expiry.touch", "room.expiry.find", "room.expiry.claim", "room.expiry.fanout"}


class Spans:
    """What one node has exported."""

    def __init__(self, **options: Any) -> None:
        ids = DepartureIds()
        provider = provider_with(ids, **options)
        self._exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.parts = traced_parts(Traces(provider, ids))

    def named(self, prefix: str) -> list[Any]:
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(prefix)]

    def names(self, prefix: str = "room.") -> set[str]:
        return {span.name for span in self.named(prefix)}


@asynccontextmanager
async def traced(server: Server, parts: Parts, **settings: Any) -> AsyncIterator[Node]:
    given = Settings(redis_url=server.socket_url, port=0, drain_seconds=0, **settings)
    async with serve_node(given, admin=serving_admin, parts=parts) as node:
        yield node


def child_of(span: Any, parent: Any) -> Any:
    return span.parent.span_id == parent.context.span_id and span.context.trace_id == parent.context.trace_id


async def test_a_join_is_traced_from_its_arrival_to_its_answer(bundled_server: Server):
    spans = Spans()
    async with traced(bundled_server, spans.parts) as node, RawClient.connect(node) as client:
        await client.join("lobby", "42")
        await until(lambda: spans.named("room.join") and "room.join" in spans.names())
    by_name = {span.name: span for span in spans.named("room.join")}
    assert set(by_name) == {
        "room.join", "room.join.queue", "room.join.follow", "room.join.script", "room.join.answer"
    }  # fmt: skip
    whole = by_name.pop("room.join")
    assert whole.attributes["reactor.room_id"] == "lobby"
    assert whole.attributes["reactor.outcome"] == "joined"
    assert whole.parent is None
    for span in by_name.values():
        assert child_of(span, whole), span.name
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time
    order = ["room.join.queue", "room.join.follow", "room.join.script", "room.join.answer"]
    assert sorted(by_name, key=lambda name: by_name[name].start_time) == order
    assert "42" not in str(whole.attributes), "a user's id is personal data"


async def test_watching_people_is_traced_without_their_names(bundled_server: Server):
    spans = Spans()
    async with (
        traced(bundled_server, spans.parts) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
    ):
        await watcher.ask("people:watch", "people:state", userIds=["ann", "bob"])
        await ann.join("lobby", "ann")
        await watcher.receive("people:diff")
        await until(lambda: {"people.watch", "people.fanout"} <= spans.names("people."))
    asked, sent = (spans.named(name)[0] for name in ("people.watch", "people.fanout"))
    assert dict(asked.attributes) == {"reactor.people": 2}
    assert dict(sent.attributes) == {"reactor.people": 1, "reactor.connections": 1}
    assert asked.end_time <= sent.start_time <= sent.end_time


async def test_an_expiry_is_one_trace_over_the_nodes_that_see_it(bundled_server: Server):
    first, second = Spans(), Spans()
    async with (
        traced(bundled_server, first.parts, ttl=1.0) as one,
        traced(bundled_server, second.parts, ttl=1.0) as other,
        RawClient.connect(one) as ann,
        RawClient.connect(other) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        heartbeats = asyncio.create_task(keep_alive(bob))
        await ann.receive("room:force-leave")
        await until(lambda: first.names("room.expiry") | second.names("room.expiry") >= EXPIRY)
        heartbeats.cancel()
    spans = first.named("room.expiry") + second.named("room.expiry")
    (root,) = (span for span in spans if span.name == "room.expiry")
    assert root.parent is None
    assert root.attributes["reactor.reason"] == "inactivity_timeout"
    assert root.attributes["reactor.found_by"] in {"event", "pacemaker"}
    late = root.attributes["reactor.lateness_ms"]
    assert 0 <= late < 5000
    assert root.end_time - root.start_time == pytest.approx(late * 1e6, abs=2e6)
    parts = [span for span in spans if span is not root]
    assert all(child_of(span, root) for span in parts)
    # Bob's node has shown it to Bob; Ann's node has closed Ann's connection.
    assert "room.expiry.fanout" in second.names()
    assert "room.expiry.force_leave" in first.names()


async def keep_alive(client: RawClient) -> None:
    while True:
        await client.send("room:heartbeat")
        await asyncio.sleep(0.2)


async def test_a_sampler_that_takes_none_makes_no_spans_and_changes_nothing(bundled_server: Server):
    spans = Spans(sampler=ALWAYS_OFF)
    async with (
        traced(bundled_server, spans.parts, ttl=1.0) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        assert (await ann.receive("room:force-leave"))["reason"] == "inactivity_timeout"
    assert spans.names("") == set()


async def test_all_nodes_sample_the_same_expiries(bundled_server: Server):
    first, second = (Spans(sampler=TraceIdRatioBased(0.5)) for _ in range(2))
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(traced(bundled_server, first.parts, ttl=1.0))
        other = await stack.enter_async_context(traced(bundled_server, second.parts, ttl=1.0))
        watcher = await stack.enter_async_context(RawClient.connect(other))
        await watcher.join("lobby", "watcher")
        heartbeats = asyncio.create_task(keep_alive(watcher))
        for number in range(20):
            client = await stack.enter_async_context(RawClient.connect(one))
            await client.join("lobby", f"u{number}")
        await until(lambda: one.roster.members == 0)
        await until(lambda: not other.fanout._windows)
        heartbeats.cancel()
    spans = first.named("room.expiry") + second.named("room.expiry")
    claimed = {span.context.trace_id for span in spans if span.name == "room.expiry"}
    shown = {span.context.trace_id for span in spans if span.name == "room.expiry.fanout"}
    assert 0 < len(claimed) < 20
    assert shown == claimed


async def test_a_refused_join_says_so(bundled_server: Server):
    spans = Spans()
    async with (
        traced(bundled_server, spans.parts, max_per_user=1) as node,
        RawClient.connect(node) as one,
        RawClient.connect(node) as other,
    ):
        await one.join("lobby", "ann")
        await other.send("join_room", roomId="lobby", userId="ann")
        await other.receive("error")
        await until(lambda: len([span for span in spans.named("room.join") if span.parent is None]) == 2)
    outcomes = {span.attributes["reactor.outcome"] for span in spans.named("room.join") if not span.parent}
    assert outcomes == {"joined", "refused"}


@contextmanager
def calls_into(folder: str) -> Iterator[list[str]]:
    """The functions of a folder that are called in this block."""
    called: list[str] = []

    def profile(frame: Any, event: str, _argument: Any) -> None:
        if event == "call" and folder in frame.f_code.co_filename:
            called.append(frame.f_code.co_qualname)

    sys.setprofile(profile)
    try:
        yield called
    finally:
        sys.setprofile(None)


async def test_tracing_costs_no_call_where_it_is_off(bundled_server: Server):
    async with served(bundled_server, ttl=1.0) as node, RawClient.connect(node) as ann:
        with calls_into("/tracing/") as called:
            await ann.join("lobby", "ann")
            await ann.receive("room:force-leave")
        assert called == []
    spans = Spans()
    async with traced(bundled_server, spans.parts, ttl=1.0) as node, RawClient.connect(node) as ann:
        with calls_into("/tracing/") as called:
            await ann.join("lobby", "ann")
        assert called, "the count sees calls"


def test_where_it_is_off_nothing_of_it_is_imported():
    # The client of Redis imports the SDK by itself, where that is installed.
    code = (
        "import reactor.server.process, sys; of_it = ('reactor.tracing.', 'opentelemetry.exporter');"
        "print([name for name in sys.modules if name.startswith(of_it)])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['reactor.tracing.node_parts']"


async def test_without_the_extra_the_setting_is_refused_with_the_fix(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(sys.modules, "reactor.tracing.export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SettingError, match=r"reactor-presence\[server,otel\]"):
        async with served(bundled_server, tracing=True):
            pass


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp, console or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "4318"),
    ],
)
async def test_a_variable_that_cannot_be_followed_is_refused(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingError, match=words):
        async with served(bundled_server, tracing=True):
            pass


async def test_spans_are_sent_to_the_collector_that_the_environment_names(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
):
    received: list[bytes] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        received.append(head + await reader.readexactly(int(lengths[0].split(b":")[1])))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(collect, "127.0.0.1", 0) as collector:
        port = collector.sockets[0].getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "rooms-of-the-shop")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        async with served(bundled_server, tracing=True) as node, RawClient.connect(node) as client:
            await client.join("lobby", "42")
            await until(lambda: received)
    sent = b"".join(received)
    assert sent.startswith(b"POST /v1/traces")
    assert b"rooms-of-the-shop" in sent
    assert b"room.join" in sent


async def test_a_collector_that_does_not_answer_is_logged_and_delays_no_end(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import structlog.testing

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with structlog.testing.capture_logs() as logged:
        async with served(bundled_server, tracing=True) as node, RawClient.connect(node) as client:
            await client.join("lobby", "42")
            await until(lambda: any(line["event"] == "traces_not_exported" for line in logged))


def test_every_span_has_a_row_in_the_documents():
    source = "".join(path.read_text() for path in (ROOT / "reactor" / "tracing").glob("*.py"))
    made = set(re.findall(r'"(room\.(?:join|expiry)[a-z_.]*)"', source))
    rows = re.findall(
        r"^\| `(room\.[a-z_.]+)` \|", section("reactor/admin/README.md", "## Traces"), re.MULTILINE
    )
    assert set(rows) == made
