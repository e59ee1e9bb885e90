"""The webhook endpoints of one node. Of all nodes, only the elected leader sends to them."""

import asyncio
from collections.abc import Callable

import anyio

from reactor.backend.interface import Runner
from reactor.fleet.election import LeaderElection
from reactor.fleet.registry import Registry
from reactor.presence.changes import ChangeLog
from reactor.presence.keys import Keyspace
from reactor.settings import Settings
from reactor.webhooks.endpoint import Endpoint
from reactor.webhooks.sender import Sender


class Webhooks:
    """Sends events while this node is their leader. `serve` must run where `senders` is not empty."""

    def __init__(
        self,
        settings: Settings,
        runner: Runner,
        keys: Keyspace,
        registry: Registry,
        *,
        node: Callable[[], str],
    ) -> None:
        self._leading = asyncio.Event()
        self._election = LeaderElection(registry, "webhooks", node=node, on_change=self._on_leadership)
        changes = ChangeLog(runner, keys)
        event_types = frozenset(settings.webhook_events)
        self.senders = [
            Sender(
                Endpoint(url, settings.webhook_secrets, private=settings.webhook_private),
                changes, event_types, self._leading,
            )
            for url in settings.webhook_urls
        ]  # fmt: skip

    def use_secrets(self, settings: Settings) -> None:
        """Sign with the secrets of these settings from now on."""
        for sender in self.senders:
            sender.use_keys(settings.webhook_secrets)

    async def begin(self) -> None:
        """Create each endpoint's position in the change log, so that later events are kept for it.

        Raises Unavailable.
        """
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
            self._leading.set()
        else:
            self._leading.clear()
