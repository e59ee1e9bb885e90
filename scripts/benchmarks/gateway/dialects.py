"""The protocols of the measured servers, as the clients of the benchmark speak them.

Each distinct message is decoded once; of the others only the head is read, which holds type and versions, so
that the benchmark does not measure its load generator.
"""

import re
import time
from collections.abc import Iterable

import msgspec

from reactor.errors import ReactorError
from scripts.benchmarks.gateway.clients import Client

_decode = msgspec.json.Decoder().decode
_KIND = re.compile(rb'\{"type":"([^"]+)"')
_JOINED = re.compile(rb'"epoch":"[^"]*","version":(\d+),"count":(\d+)')
_DIFF = re.compile(rb'"from":(\d+),"version":(\d+),"count":(\d+)')
_COUNT = re.compile(rb'"version":(\d+),"count":(\d+)')
_KEPT = 10_000  # bounds the cache of decoded changes in a long run
_ANSWERS = {b"room:members", b"room:updated", b"room:left"}


class Echo:
    """The protocol of an echo server: any text is a reply. The base class of the others."""

    path = "/ws"
    opened_by_server = False
    has_rooms = False
    heartbeat = b'{"type":"room:heartbeat","roomId":"lobby"}'

    def join(self, client: Client) -> bytes:
        """Return the message that joins the client's room."""
        raise ReactorError(f"{client.number}: an echo server has no rooms")

    def heartbeat_of(self, _client: Client) -> bytes:
        """Return the heartbeat message of a client."""
        return self.heartbeat

    def on_message(self, client: Client, _head: bytes, _size: int) -> None:
        """Process a received message: all of it, or the head of a long one, and its size."""
        client.crowd.acked(client)


class Reactor(Echo):
    """The reactor's protocol."""

    has_rooms = True

    def __init__(self) -> None:
        self._changes: dict[bytes, tuple[int, int, int]] = {}

    def join(self, client: Client) -> bytes:
        """Return the message that joins the client's room."""
        return b'{"type":"join_room","roomId":"%b","userId":"u%d"}' % (client.room.encode(), client.number)

    def heartbeat_of(self, client: Client) -> bytes:
        """Return the heartbeat message of a client."""
        return b'{"type":"room:heartbeat","roomId":"%b"}' % client.room.encode()

    def on_message(self, client: Client, head: bytes, size: int) -> None:
        """Process a received message, by its head if it is long."""
        crowd = client.crowd
        if head.startswith(b'{"type":"room:diff"'):
            crowd.bytes += size
            crowd.messages["room:diff"] += 1
            self._diff(client, head, size)
            return
        found = _KIND.match(head)
        kind = found[1] if found else b""
        if kind == b"room:heartbeat:ack":
            crowd.acked(client)
            return
        crowd.bytes += size
        crowd.messages[kind.decode()] += 1
        if kind == b"room:joined":
            place = _JOINED.search(head)
            assert place is not None
            client.version = int(place[1])
            client.set_members_known(int(place[2]))
            client.answer()
        elif kind == b"room:count":
            place = _COUNT.search(head)
            assert place is not None
            client.version = int(place[1])
            client.notified_at = time.perf_counter()
            client.set_members_known(int(place[2]))
        elif kind in _ANSWERS:
            client.answer()
        else:
            crowd.unexpected.append(head.decode(errors="replace"))
            client.answer()

    def _diff(self, client: Client, head: bytes, size: int) -> None:
        # All members of a room receive the same bytes, so they are decoded once.
        change = self._changes.get(head)
        if change is None:
            if len(self._changes) == _KEPT:
                self._changes.clear()
            change = self._changes[head] = self._read(client, head, size)
        start, version, count = change
        if start > client.version:
            client.crowd.unexpected.append(f"gap: {start} after {client.version}")
        client.crowd.events += version - start  # each version is one change
        client.version = max(version, client.version)
        client.notified_at = time.perf_counter()
        client.set_members_known(count)

    def _read(self, client: Client, head: bytes, size: int) -> tuple[int, int, int]:
        """Return first version, last version and count of a diff; check its changes if it is complete."""
        place = _DIFF.search(head)
        assert place is not None
        start, version, count = map(int, place.groups())
        changes = version - start
        if len(head) == size:
            message = _decode(head)
            # Of several changes of one member the diff holds only the last.
            changes_sent = sum(len(message[what]) for what in ("joined", "updated", "left"))
            whole = changes_sent == changes or (message["updated"] and 0 < changes_sent < changes)
            if not whole or message["roomId"] != client.room:
                client.crowd.unexpected.append(f"{changes_sent} changes in {start} to {version}")
        return start, version, count


class SocketIo(Echo):
    """Socket.IO 4 over Engine.IO 4, WebSocket only; each join is an event of its own."""

    path = "/socket.io/?EIO=4&transport=websocket"
    opened_by_server = True
    has_rooms = True
    heartbeat = b'42["room:heartbeat"]'

    def join(self, client: Client) -> bytes:
        """Return the message that joins the client's room."""
        return b'42["join_room",{"roomId":"%b","userId":"u%d"}]' % (client.room.encode(), client.number)

    def on_message(self, client: Client, head: bytes, size: int) -> None:
        """Process a received message."""
        crowd = client.crowd
        if head.startswith(b'42["room:heartbeat:ack"'):
            crowd.acked(client)
        elif head.startswith(b'42["user:joined"'):
            crowd.events += 1
            crowd.messages["user:joined"] += 1
            crowd.bytes += size
            client.notified_at = time.perf_counter()
            client.set_members_known(client.members_known + 1)
        elif head.startswith(b'42["room:joined"'):
            crowd.messages["room:joined"] += 1
            crowd.bytes += size
            # Each member has one `userId`, and so has the message itself.
            client.set_members_known(client.members_known + head.count(b'"userId"') - 1)
            client.answer()
        elif head == b"2":
            client.send(b"3")
        elif head[:1] == b"0":
            client.send(b"40")
        elif head.startswith(b"40"):
            client.answer()
        else:
            crowd.unexpected.append(head[:200].decode(errors="replace"))


class Centrifugo(Echo):
    """The JSON protocol of Centrifugo: a channel with presence, and with pushes of joins and leaves.

    A client subscribes and asks for the channel's presence, as its documentation describes. The server sends
    the heartbeats, and renews the presence in Redis by itself: a client answers an empty object by another.
    """

    path = "/connection/websocket"
    has_rooms = True
    heartbeat = b""
    _JOIN = re.compile(rb'"join":\{"info":\{[^{}]*"client":"([^"]+)"')

    def join(self, client: Client) -> bytes:
        """Return the messages that connect, join the client's room and ask who is there, a line each."""
        channel = client.room.encode()
        return b"\n".join(
            (
                b'{"id":1,"connect":{"name":"u%d"}}' % client.number,
                b'{"id":2,"subscribe":{"channel":"%b"}}' % channel,
                b'{"id":3,"presence":{"channel":"%b"}}' % channel,
            )
        )

    def on_message(self, client: Client, head: bytes, size: int) -> None:
        """Process a received frame: one message or more, a line each."""
        crowd = client.crowd
        crowd.bytes += size
        for line in head.splitlines():
            if line == b"{}":
                client.send(b"{}")
                crowd.acks += 1
            elif line.startswith(b'{"push"'):
                found = self._JOIN.search(line)
                if found is not None:
                    crowd.events += 1
                    self._add(client, (found[1],))
            elif line.startswith(b'{"id":3'):
                self._add(client, re.findall(rb'"client":"([^"]+)"', line))
                client.answer()
            elif b'"error"' in line or not line.startswith((b'{"id":1', b'{"id":2')):
                crowd.unexpected.append(line[:200].decode(errors="replace"))

    def _add(self, client: Client, members: Iterable[bytes]) -> None:
        """Add members to a client's list: a join may be pushed before or after the list that has it."""
        client.members.update(members)
        client.set_members_known(len(client.members))
