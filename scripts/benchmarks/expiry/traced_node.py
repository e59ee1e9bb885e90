"""A node that notes when each expiry reaches each stage, for the expiry lab.

As a program (`python -m scripts.benchmarks.expiry.traced_node SETTINGS`) it is
`scripts.benchmarks.node`, with `stages` in each answer: for each member the times (s, `time.time()`) at which

    scan    the pacemaker woke up and called `due` for its shard
    due     the reply arrived
    event   the listener received the `expired` event
    claim   the claim was handed to Redis
    diff    the diff of its departure was received
    sent    its connections had been written to
"""

import asyncio
import sys
import time
from typing import Any

from reactor.server.node import Node
from reactor.server.process import run_node
from reactor.settings import Settings
from scripts.benchmarks.child import answer_status_requests, serve_with_json_settings, write_line
from scripts.benchmarks.node import status_of

STAGES = ("scan", "due", "event", "claim", "diff", "sent")


class Tracer:
    """Notes the first time at which each member reaches each stage. Members are named `ROOM:user:USER`."""

    def __init__(self) -> None:
        self.times: dict[str, dict[str, float]] = {}

    def note(self, stage: str, member: str, at: float | None = None) -> None:
        """Note a stage."""
        self.times.setdefault(member, {}).setdefault(stage, time.time() if at is None else at)

    def attach(self, node: Node) -> None:
        """Wrap what a node does at each stage."""
        self._trace_store(node.store)
        self._trace_listener(node)
        self._trace_feed(node)

    def _trace_store(self, store: Any) -> None:
        due, claim = store.due, store.claim

        async def traced_due(shard: int, **given: Any) -> Any:
            began = time.time()
            found = await due(shard, **given)
            for member in found.gone:
                self.note("scan", member, began)
                self.note("due", member)
            return found

        async def traced_claim(shard: int, suffixes: list[str]) -> Any:
            for member in suffixes:
                self.note("claim", member)
            return await claim(shard, suffixes)

        store.due, store.claim = traced_due, traced_claim

    def _trace_listener(self, node: Any) -> None:
        keys, parse = node.listener._keys, node.listener._keys.parse  # noqa: SLF001

        class TracedKeys:
            def parse(_, key: bytes) -> Any:  # noqa: N805
                found = parse(key)
                if found is not None:
                    self.note("event", found[1])
                return found

        assert keys is not None
        node.listener._keys = TracedKeys()  # noqa: SLF001

    def _trace_feed(self, node: Any) -> None:
        feed = node.feed
        on_left, on_diff = feed._on_left, feed._on_diff  # noqa: SLF001

        def traced_left(room_id: str, row: Any, member: Any) -> None:
            self.note("diff", f"{room_id}:user:{row.user_id}")
            on_left(room_id, row, member)

        def traced_diff(diff: Any) -> None:
            on_diff(diff)
            for left in diff.left:
                self.note("sent", f"{diff.room_id}:user:{left.user_id}")

        feed._on_left, feed._on_diff = traced_left, traced_diff  # noqa: SLF001


async def _serve(settings: Settings) -> None:
    listening: list[asyncio.Future[Any]] = []
    tracer = Tracer()

    def ready(node: Node) -> None:
        tracer.attach(node)
        listening.append(answer_status_requests(lambda: {**status_of(node), "stages": tracer.times}))
        write_line({"port": node.gateway.port})

    await run_node(settings, on_ready=ready)


def main() -> int:
    """Serve with the settings in the first argument, as JSON."""
    return serve_with_json_settings(_serve)


if __name__ == "__main__":
    sys.exit(main())
