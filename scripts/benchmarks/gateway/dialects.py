"""What each kind of server wants to hear, and what it says.

Each change is looked into once; of all else a client reads the head, which says what it is, and up to where
the room is known by it: the load generator must not be what is measured.
"""

import re
import time

import msgspec

from reactor.errors import ReactorError
from scripts.benchmarks.gateway.clients import Client

_decode = msgspec.json.Decoder().decode
_KIND = re.compile(rb'\{"type":"([^"]+)"')
_JOINED = re.compile(rb'"epoch":"[^"]*","version":(\d+),"count":(\d+)')
_DIFF = re.compile(rb'"from":(\d+),"version":(\d+),"count":(\d+)')
_COUNT = re.compile(rb'"version":(\d+),"count":(\d+)')
_KEPT = 10_000  # changes, so that a long run does not grow
_ANSWERS = {b"room:members", b"room:updated", b"room:left"}


class Echo:
    """What a kind of server wants to hear, and what it says. This is an echo's: any text is an answer."""

    path = "/ws"
    opened_by_server = False
    heartbeat = b'{"type":"room:heartbeat","roomId":"lobby"}'

    def join(self, client: Client) -> bytes:
        """What a client says to come in."""
        raise ReactorError(f"{client.number}: an echo server has no rooms")

    def heartbeat_of(self, _client: Client) -> bytes:
        """What a client says every 25 s."""
        return self.heartbeat

    def heard(self, client: Client, _head: bytes, _size: int) -> None:
        """Take what the server says: a whole message, or the head of a long one, and its size."""
        client.crowd.acked(client)


class Reactor(Echo):
    """The reactor's own wire."""

    def __init__(self) -> None:
        self._changes: dict[bytes, tuple[int, int, int]] = {}

    def join(self, client: Client) -> bytes:
        """What a client says to come in."""
        return b'{"type":"join_room","roomId":"%b","userId":"u%d"}' % (client.room.encode(), client.number)

    def heartbeat_of(self, client: Client) -> bytes:
        """What a client says every 25 s."""
        return b'{"type":"room:heartbeat","roomId":"%b"}' % client.room.encode()

    def heard(self, client: Client, head: bytes, size: int) -> None:
        """Take what the server says: by its head, where it is long."""
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
            client.knows(int(place[2]))
            client.answer()
        elif kind == b"room:count":
            place = _COUNT.search(head)
            assert place is not None
            client.version = int(place[1])
            client.told_at = time.perf_counter()
            client.knows(int(place[2]))
        elif kind in _ANSWERS:
            client.answer()
        else:
            crowd.complaints.append(head.decode(errors="replace"))
            client.answer()

    def _diff(self, client: Client, head: bytes, size: int) -> None:
        # All members of a room are sent the same bytes: the first client reads them for all.
        change = self._changes.get(head)
        if change is None:
            if len(self._changes) == _KEPT:
                self._changes.clear()
            change = self._changes[head] = self._read(client, head, size)
        start, version, count = change
        if start > client.version:
            client.crowd.complaints.append(f"a gap: {start} after {client.version}")
        client.crowd.events += version - start  # each version is one change
        client.version = max(version, client.version)
        client.told_at = time.perf_counter()
        client.knows(count)

    def _read(self, client: Client, head: bytes, size: int) -> tuple[int, int, int]:
        """Give the versions from which and to which a change goes, and the count; look into a whole one."""
        place = _DIFF.search(head)
        assert place is not None
        start, version, count = map(int, place.groups())
        changes = version - start
        if len(head) == size:
            message = _decode(head)
            # Of several changes of one member only the last is told.
            told = sum(len(message[what]) for what in ("joined", "updated", "left"))
            whole = told == changes or (message["updated"] and 0 < told < changes)
            if not whole or message["roomId"] != client.room:
                client.crowd.complaints.append(f"{told} changes in {start} to {version}")
        return start, version, count


class SocketIo(Echo):
    """Socket.IO 4 over Engine.IO 4, WebSocket alone; each join is an event of its own."""

    path = "/socket.io/?EIO=4&transport=websocket"
    opened_by_server = True
    heartbeat = b'42["room:heartbeat"]'

    def join(self, client: Client) -> bytes:
        """What a client says to come in."""
        return b'42["join_room",{"roomId":"%b","userId":"u%d"}]' % (client.room.encode(), client.number)

    def heard(self, client: Client, head: bytes, size: int) -> None:
        """Take what the server says."""
        crowd = client.crowd
        if head.startswith(b'42["room:heartbeat:ack"'):
            crowd.acked(client)
        elif head.startswith(b'42["user:joined"'):
            crowd.events += 1
            crowd.messages["user:joined"] += 1
            crowd.bytes += size
            client.told_at = time.perf_counter()
            client.knows(client.known + 1)
        elif head.startswith(b'42["room:joined"'):
            crowd.messages["room:joined"] += 1
            crowd.bytes += size
            # Each member has one `userId`; the room's own is counted once more.
            client.knows(client.known + head.count(b'"userId"') - 1)
            client.answer()
        elif head == b"2":
            client.say(b"3")
        elif head[:1] == b"0":
            client.say(b"40")
        elif head.startswith(b"40"):
            client.answer()
        else:
            crowd.complaints.append(head[:200].decode(errors="replace"))
