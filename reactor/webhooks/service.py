"""The webhook endpoints of one node; of all nodes, the elected leader sends."""

import asyncio
from collections.abc import Callable

import anyio

from reactor.backend.interface import Runner
from reactor.fleet.election import LeaderElection
from reactor.fleet.registry import Registry
from reactor.presence.changes import ChangeLog
from reactor.settings import Settings
from reactor.webhooks.endpoint import Endpoint
from reactor.webhooks.sender import Sender


class Webhooks:
    """Sends events while this node is their leader. `serve` has to run where `senders` is not empty."""

    def __init__(
        self, settings: Settings, runner: Runner, registry: Registry, *, node: Callable[[], str]
    ) -> None:
        self._sending = asyncio.Event()
        self._election = LeaderElection(registry, "webhooks", node=node, on_change=self._on_leadership)
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
        """Take part in the election, and send while this node leads, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._election.serve)
            for sender in self.senders:
                tasks.start_soon(sender.serve)

    def _on_leadership(self, leading: bool) -> None:
        if leading:
            self._sending.set()
        else:
            self._sending.clear()
