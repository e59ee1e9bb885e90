"""All endpoints of one node, of which one in the fleet sends."""

import asyncio
from collections.abc import Callable

import anyio

from reactor.backend.interface import Runner
from reactor.fleet.election import Turn
from reactor.fleet.registry import Fleet
from reactor.presence.changes import ChangeLog
from reactor.settings import Settings
from reactor.webhooks.endpoint import Endpoint
from reactor.webhooks.sender import Sender


class Webhooks:
    """Sends events while it is this node's turn. `serve` has to run where `senders` is not empty."""

    def __init__(self, settings: Settings, runner: Runner, fleet: Fleet, *, node: Callable[[], str]) -> None:
        self._sending = asyncio.Event()
        self._turn = Turn(fleet, "webhooks", node=node, on_change=self._on_turn)
        changes = ChangeLog(runner, settings.namespace)
        wanted = frozenset(settings.webhook_events)
        self.senders = [
            Sender(
                Endpoint(url, settings.webhook_secrets, private=settings.webhook_private),
                changes, wanted, self._sending,
            )
            for url in settings.webhook_urls
        ]  # fmt: skip

    async def begin(self) -> None:
        """See that all that happens from here on is in the log. Raises Unavailable."""
        for sender in self.senders:
            await sender.begin()

    async def serve(self) -> None:
        """Keep the turn, and send while it is held, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._turn.serve)
            for sender in self.senders:
                tasks.start_soon(sender.serve)

    def _on_turn(self, held: bool) -> None:
        if held:
            self._sending.set()
        else:
            self._sending.clear()
