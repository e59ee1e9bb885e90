"""The fast path around the parser, and shared parsers: the result always equals that of websockets' parser.

The oracle is a dedicated ServerProtocol that receives the same chunks, and a few lines that join its
fragments.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from reactor.gateway.connection import Connection, ConnectionState
from reactor.gateway.context import ConnectionCounts, GatewayContext
from reactor.gateway.framing import at_rest, frame
from reactor.gateway.outbox import SendBudget
from reactor.gateway.rate_limit import RateLimit
from reactor.gateway.timing_wheel import TimingWheel
from reactor.protocol.codec import JSON, MSGPACK
from tests.support.gateway import client_frame, request

MAX = 300


class Transport:
    """Records what is written; its buffer is never full."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.closed = True


class FakeContext(GatewayContext):
    def __init__(self) -> None:
        self.now = 1.0
        self.counts = ConnectionCounts()
        self.send_buffer = 1 << 20
        self.send_budget = SendBudget(1 << 30)
        self._blocked: dict[Any, float] = {}
        self.wheel: Any = TimingWheel(0.1, 0.0)
        self.close_timeout = 1.0
        self.rate_limit = RateLimit(0, 1, 0.1)
        self._idle_parsers: list[ServerProtocol] = []
        self._max_message = MAX
        self.message_timeout = 30.0
        self.unread = 0

    def take_part(self) -> bool:
        return True

    def schedule_read(self, reader: Any) -> None:
        reader.read_on()

    def schedule_flush(self, target: Any) -> None:
        target.flush()

    def update_clock(self) -> float:
        return self.now


class Listener(Connection):
    """Records messages instead of processing them; accepts text and binary frames."""

    __slots__ = ("received",)

    received: list[tuple[bool, bytes]]

    def message_received(self, payload: bytes, *, binary: bool) -> None:
        self.received.append((binary, bytes(payload)))


def opened(context: FakeContext, *, binary: bool) -> Listener:
    listener = Listener(context)
    listener.received = []
    listener._transport = Transport()  # type: ignore[assignment]
    listener.codec = MSGPACK if binary else JSON
    listener.state = ConnectionState.OPEN
    listener._fast_byte = 0x82 if binary else 0x81
    return listener


def oracle(  # noqa: C901 - the RFC's rules in one place
    chunks: list[bytes],
) -> tuple[list[tuple[bool, bytes]], list[bytes], int | None]:
    """Return the messages, the payloads of pongs, and the close code sent."""
    parser = ServerProtocol(state=OPEN, max_size=MAX)
    messages: list[tuple[bool, bytes]] = []
    pongs: list[bytes] = []
    parts: list[bytes] = []
    opcode, code = Opcode.TEXT, None
    for chunk in chunks:
        parser.receive_data(chunk)
        for event in parser.events_received():
            assert isinstance(event, Frame)
            data = bytes(event.data)
            if event.opcode is Opcode.PING:
                pongs.append(data)
            elif event.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
                if event.opcode is not Opcode.CONT:
                    opcode, parts = event.opcode, []
                parts.append(data)
                if len(parts) > 16:
                    return messages, pongs, 1008
                if opcode is Opcode.TEXT:
                    try:
                        b"".join(parts).decode()
                    except UnicodeDecodeError as error:
                        # A character split at the end of a fragment is not an error yet.
                        if event.fin or error.reason != "unexpected end of data":
                            return messages, pongs, 1007
                if event.fin:
                    messages.append((opcode is Opcode.BINARY, b"".join(parts)))
        if parser.close_sent is not None:
            code = parser.close_sent.code
        if parser.eof_sent:
            break
    return messages, pongs, code


def written(data: bytes) -> tuple[list[bytes], int | None]:
    """Return the pongs and the close code in written bytes; nothing else may be in them."""
    pongs, code = [], None
    while data:
        assert code is None
        assert data[1] < 126
        payload, data, head = data[2 : 2 + data[1]], data[2 + data[1] :], data[0]
        if head == 0x8A:
            pongs.append(payload)
        else:
            assert head == 0x88
            code = int.from_bytes(payload[:2]) if payload else 1005
    return pongs, code


payloads = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    st.integers(100, 140).map(lambda size: b"x" * size),
    st.integers(MAX - 2, MAX + 2).map(lambda size: b"y" * size),
)
data_frames = st.builds(
    client_frame, st.sampled_from([Opcode.TEXT, Opcode.BINARY]), payloads, mask=st.just(value=True)
)
text_frames = st.builds(client_frame, st.just(Opcode.TEXT), st.text(max_size=60).map(str.encode))
fragments = st.builds(
    client_frame, st.sampled_from([Opcode.TEXT, Opcode.CONT, Opcode.BINARY]), payloads, fin=st.booleans()
)
controls = st.builds(
    client_frame,
    st.sampled_from([Opcode.PING, Opcode.PONG]),
    st.binary(max_size=125),
)
closes = st.builds(
    client_frame,
    st.just(Opcode.CLOSE),
    st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03", b"\x00\x01"]),
)
unmasked = st.builds(client_frame, st.just(Opcode.TEXT), payloads, mask=st.just(value=False))
random_bytes = st.binary(min_size=1, max_size=12)
mostly_valid = st.one_of(text_frames, text_frames, data_frames, controls, fragments)
streams = st.builds(
    lambda valid, tail: [*valid, *tail],
    st.lists(mostly_valid, max_size=14),
    st.lists(st.one_of(mostly_valid, closes, unmasked, random_bytes), max_size=4),
)


@st.composite
def chunked(draw: st.DrawFn) -> list[bytes]:
    """A stream of frames: one a chunk, as nearly always, or split anywhere."""
    frames = draw(streams)
    if draw(st.booleans()):
        return frames
    whole = b"".join(frames)
    positions = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    chunks = [whole[start:end] for start, end in zip([0, *positions], [*positions, len(whole)], strict=True)]
    return [chunk for chunk in chunks if chunk]


@settings(max_examples=800, deadline=None)
@given(chunked(), st.booleans())
def test_any_bytes_in_any_chunks_give_the_result_of_a_dedicated_parser(chunks, binary):
    context = FakeContext()
    listener = opened(context, binary=binary)
    for chunk in chunks:
        listener.data_received(chunk)
    messages, pongs, code = oracle(chunks)
    assert listener.received == messages
    assert written(bytes(listener._transport.written)) == (pongs, code)  # type: ignore[attr-defined]
    assert listener._transport.closed == (code is not None)  # type: ignore[attr-defined]


@settings(max_examples=300, deadline=None)
@given(st.lists(chunked(), min_size=2, max_size=4))
def test_shared_parsers_carry_no_state_between_connections(streams_):
    context = FakeContext()
    listeners = [opened(context, binary=False) for _ in streams_]
    for turn in range(max(map(len, streams_))):
        for listener, chunks in zip(listeners, streams_, strict=True):
            if turn < len(chunks):
                listener.data_received(chunks[turn])
    for listener, chunks in zip(listeners, streams_, strict=True):
        messages, pongs, code = oracle(chunks)
        assert listener.received == messages
        assert written(bytes(listener._transport.written)) == (pongs, code)  # type: ignore[attr-defined]


def test_a_parser_with_a_partial_header_is_not_at_rest():
    parser = ServerProtocol(state=OPEN, max_size=MAX)
    whole = client_frame(Opcode.TEXT, b"hello")
    for end in range(1, len(whole)):
        parser.receive_data(whole[end - 1 : end])
        assert not at_rest(parser), f"after {end} bytes"
    parser.receive_data(whole[-1:])
    assert not at_rest(parser)
    parser.events_received()
    assert at_rest(parser)


def test_a_parser_that_is_closing_within_a_message_or_compressing_is_not_at_rest():
    parser = ServerProtocol(state=OPEN)
    parser.receive_data(client_frame(Opcode.TEXT, b"a", fin=False))
    parser.events_received()
    assert not at_rest(parser)

    parser = ServerProtocol(state=OPEN)
    parser.send_close(1000)
    parser.data_to_send()
    assert not at_rest(parser)

    parser = ServerProtocol(state=OPEN)
    parser.extensions = [object()]  # type: ignore[list-item]
    assert not at_rest(parser)


def test_the_function_in_which_a_parser_waits_still_exists_in_websockets():
    parser = ServerProtocol()
    assert not at_rest(parser)
    parser.receive_data(request())
    (event,) = parser.events_received()
    parser.send_response(parser.accept(event))  # type: ignore[arg-type]
    parser.data_to_send()
    assert at_rest(parser)
    assert StreamReader.at_eof.__code__.co_name == "at_eof"


def test_a_connection_between_messages_holds_no_parser():
    context = FakeContext()
    listener = opened(context, binary=False)
    for chunk in (client_frame(1, b"{}"), client_frame(9, b"ping"), client_frame(1, b"x" * 200)):
        listener.data_received(chunk)
        assert listener._parser is None
        assert listener._fast_byte == 0x81
    assert len(context._idle_parsers) == 1


def test_the_number_of_idle_parsers_is_bounded():
    context = FakeContext()
    listeners = [opened(context, binary=False) for _ in range(200)]
    whole = client_frame(1, b"{}")
    for half in (whole[:3], whole[3:]):
        for listener in listeners:
            listener.data_received(half)
    assert all(listener.received == [(False, b"{}")] for listener in listeners)
    assert 0 < len(context._idle_parsers) <= 64


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
@pytest.mark.parametrize("binary", [False, True])
def test_frame_equals_the_serialization_of_websockets(size, binary):
    payload = b"z" * size
    opcode = Opcode.BINARY if binary else Opcode.TEXT
    assert frame(payload, binary=binary) == Frame(opcode, payload).serialize(mask=False)
