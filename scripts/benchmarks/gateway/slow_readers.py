"""One reader in a hundred stops reading: what the others notice of it, and what the server holds for it.

A room whose members change their data all the time, 4 KB each; and the same with stalled readers among them.
"""

import asyncio
import socket
import time
from typing import Any

from reactor.errors import ReactorError
from scripts.benchmarks.figures import quantile
from scripts.benchmarks.gateway.clients import Client
from scripts.benchmarks.gateway.rows import Meter, Subject

_TALKERS = 20
_DATA = b"x" * 4000
_PAUSE = 0.06  # between rounds: longer than a window, so that each round is a message of its own


class Reader(Client):
    """A member that notes when it hears of a change."""

    def on_ws_connected(self, transport: Any) -> None:
        """Take little from the network ahead of reading, as a phone far away does."""
        super().on_ws_connected(transport)
        wire = transport.underlying_transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)


async def measure_slow(subject: Subject, members: int, stalled: int, rounds: int) -> dict[str, Any]:
    """Play the room with so many stalled readers."""
    crowd = subject.crowd(members, members)
    crowd.skims = True
    await crowd.each(
        ((number, "busy") for number in range(members)), lambda number, room: crowd.join(number, room, Reader)
    )
    await crowd.complete_within(60)
    asleep = set(crowd.clients[-stalled:]) if stalled else set()
    awake = [client for client in crowd.clients if client not in asleep]
    for client in asleep:
        client.transport.underlying_transport.pause_reading()
    await asyncio.sleep(0.5)
    base, most = subject.served.resident(), 0
    meter, delays = Meter(subject), []
    for number in range(rounds):
        asked = time.perf_counter()
        for talker in awake[:_TALKERS]:
            talker.say(b'{"type":"room:update","roomId":"busy","data":"%d%b"}' % (number, _DATA))
        await asyncio.sleep(_PAUSE)
        delays.append(max(client.told_at for client in awake) - asked)
        most = max(most, subject.served.resident() - base)
    server, _, _ = meter.read()
    cut_off = members - (await subject.served.question())["connections"]
    last = max(client.version for client in awake)
    if crowd.complaints or any(client.version < last for client in awake):
        raise ReactorError(f"readers who read were disturbed: {crowd.complaints[:3]}, {crowd.closed[:3]}")
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
