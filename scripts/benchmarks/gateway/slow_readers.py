"""Measures the effect of clients that stop reading on the other clients and on the memory of the server.

The members of a room update their data all the time, 4 KB each, with and without stalled readers.
"""

import asyncio
import socket
import time
from typing import Any

from reactor.errors import ReactorError
from scripts.benchmarks.figures import quantile
from scripts.benchmarks.gateway.clients import Client
from scripts.benchmarks.gateway.rows import Meter, Subject

_SENDERS = 20
_DATA = b"x" * 4000
_PAUSE = 0.06  # between rounds; longer than a diff window, so that each round is one message


class Reader(Client):
    """A client with a small receive buffer."""

    def on_ws_connected(self, transport: Any) -> None:
        """Shrink the receive buffer, as on a phone with a slow connection."""
        super().on_ws_connected(transport)
        wire = transport.underlying_transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)


async def measure_slow(subject: Subject, members: int, stalled: int, rounds: int) -> dict[str, Any]:
    """Measure the room with `stalled` clients that do not read."""
    crowd = subject.crowd(members, members)
    crowd.skims = True
    await crowd.each(
        ((number, "busy") for number in range(members)), lambda number, room: crowd.join(number, room, Reader)
    )
    await crowd.complete_within(60)
    stalled_clients = set(crowd.clients[-stalled:]) if stalled else set()
    reading_clients = [client for client in crowd.clients if client not in stalled_clients]
    for client in stalled_clients:
        client.transport.underlying_transport.pause_reading()
    await asyncio.sleep(0.5)
    base, most = subject.served.resident(), 0
    meter, delays = Meter(subject), []
    for number in range(rounds):
        asked = time.perf_counter()
        for sender in reading_clients[:_SENDERS]:
            sender.send(b'{"type":"room:update","roomId":"busy","data":"%d%b"}' % (number, _DATA))
        await asyncio.sleep(_PAUSE)
        delays.append(max(client.notified_at for client in reading_clients) - asked)
        most = max(most, subject.served.resident() - base)
    server, _, _ = meter.read()
    cut_off = members - (await subject.served.status())["connections"]
    last = max(client.version for client in reading_clients)
    if crowd.unexpected or any(client.version < last for client in reading_clients):
        raise ReactorError(f"reading clients were affected: {crowd.unexpected[:3]}, {crowd.closed[:3]}")
    crowd.leave()
    return {
        "members": members,
        "stalled": stalled,
        "rounds": rounds,
        "server_cpu_seconds": server,
        "others_ms_p50": quantile(delays, 0.5) * 1000,
        "others_ms_p99": quantile(delays, 0.99) * 1000,
        "cut_off": cut_off,
        "most_bytes_more": most,
    }
