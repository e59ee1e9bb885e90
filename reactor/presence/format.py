"""The format of a namespace: how its data is laid out in Redis, in one key that all programs on it read.

`{NAMESPACE:fleet}:format` is a hash:

    number           the format in which the data is written
    shards           into how many shards the rooms are divided
    release:RELEASE  when a node of that release was last seen (ms)

The first node that starts on an empty namespace creates it; after that neither number changes by a setting,
since a program that divides the rooms differently reads and writes other keys. It has no TTL: it describes
data that has none either, such as the totals. When Redis loses it, the nodes restore it with their next
renewal of the lease (lua/fleet/renew_lease.lua). Programs without a node only read it.

A release speaks all formats of a range. How a fleet passes from one format to the next: "Changing the format"
in ARCHITECTURE.md.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import anyio

from reactor.backend.interface import Runner
from reactor.backend.target import Kind
from reactor.errors import FormatMismatch, Unavailable
from reactor.presence.keys import Keyspace
from reactor.presence.tags import CLUSTER_SHARDS, SHARDS

SHARDS_BEFORE_FORMATS = 16
"""Development versions before format 1 numbered their tags only: `{NAMESPACE:0}` and so on."""


class FormatRange(NamedTuple):
    """The formats that a release speaks; both ends are included."""

    oldest: int
    newest: int

    def __str__(self) -> str:
        return f"{self.oldest}" if self.oldest == self.newest else f"{self.oldest} to {self.newest}"


class Format(NamedTuple):
    """What the format key says."""

    number: int
    shards: int


CHECK_INTERVAL = 5.0
"""Seconds after which a program without a node looks again whether the format is the same."""

FORMATS = FormatRange(1, 1)
"""The formats that this release speaks."""


def default_shards(kind: Kind) -> int:
    """Return how many shards a new namespace gets where the setting `shards` is not set."""
    return CLUSTER_SHARDS if kind == "cluster" else SHARDS


def format_objection(
    found: Format, namespace: str, *, shards: int | None = None, formats: FormatRange | None = None
) -> str:
    """Return why this release, with the setting `shards`, cannot use a namespace of this format; or ''."""
    formats = formats or FORMATS
    if not formats.oldest <= found.number <= formats.newest:
        direction = "a newer" if found.number > formats.newest else "an older"
        return (
            f"the namespace {namespace} is in format {found.number}, and this release speaks {formats}: "
            f"use {direction} release, or another namespace"
        )
    if shards is not None and shards != found.shards:
        return (
            f"the namespace {namespace} has {found.shards} shards since its first start, and the setting "
            f"shards is {shards}: remove the setting, or use another namespace"
        )
    return ""


def check_format(found: Format, namespace: str, *, shards: int | None = None) -> None:
    """Raise FormatMismatch where this release, with the setting `shards`, cannot use the namespace."""
    if objection := format_objection(found, namespace, shards=shards):
        raise FormatMismatch(f"{objection}.")


async def read_format(runner: Runner, namespace_prefix: str) -> Format | None:
    """Return the format that is stored, or None where the namespace has none yet. Raises Unavailable."""
    reply = await runner.run("read_format", namespace_prefix)
    return Format(*reply) if reply else None


async def open_format(runner: Runner, keys: Keyspace, *, shards: int | None, default: int) -> Format:
    """Return the format of the namespace, which is created where there is none; `keys` then has its shards.

    shards: the setting. default: how many shards a new namespace has without it.

    Raises FormatMismatch where this release cannot use the namespace, or Unavailable.
    """
    found = await read_format(runner, keys.fleet)
    if found is None:
        await _refuse_older_layout(runner, keys.namespace)
        reply = await runner.run("open_format", keys.fleet, FORMATS.newest, shards or default)
        found = Format(*reply)
    check_format(found, keys.namespace, shards=shards)
    keys.use_shards(found.shards)
    return found


async def _refuse_older_layout(runner: Runner, namespace: str) -> None:
    for shard in range(SHARDS_BEFORE_FORMATS):
        prefix = f"{{{namespace}:{shard}}}"
        if await runner.run("has_data", prefix):
            raise FormatMismatch(
                f"the namespace {namespace} has data of a development version before format 1, such as "
                f"{prefix}:nodes: stop its servers and delete the keys that begin with {{{namespace}: , "
                "or use another namespace."
            )


class NamespaceFormat:
    """The format as a program without a node sees it, which only reads. `serve` has to run.

    Until the first node has created the namespace, the number of shards is assumed; it is read again before
    each use (`check`), and taken over unless something depends on it by then (`pin`). on_mismatch is called
    when the namespace can no longer be used as it was; `check` then raises.
    """

    def __init__(
        self, runner: Runner, keys: Keyspace, *, shards: int | None, default: int,
        on_mismatch: Callable[[FormatMismatch], None],
    ) -> None:  # fmt: skip
        self._runner, self._keys, self._setting = runner, keys, shards
        self._assumed, self._pinned = True, False
        self._on_mismatch = on_mismatch
        self._mismatch: FormatMismatch | None = None
        keys.use_shards(shards or default)

    async def check(self) -> None:
        """Raise FormatMismatch where the namespace cannot be used, or Unavailable."""
        if self._assumed:
            await self._read()
        self.check_known()

    def check_known(self) -> None:
        """Raise FormatMismatch where the namespace is known not to be usable."""
        if self._mismatch is not None:
            raise self._mismatch

    def pin(self) -> None:
        """Keep the number of shards from now on: channels or streams are in use."""
        self._pinned = True

    async def serve(self) -> None:
        """Look for changes until cancelled, or until the namespace cannot be used."""
        while self._mismatch is None:
            await anyio.sleep(CHECK_INTERVAL)
            with suppress(Unavailable):
                await self._read()

    async def _read(self) -> None:
        found = await read_format(self._runner, self._keys.fleet)
        if found is None:
            return
        free = self._assumed and not self._pinned
        expected = self._setting if free else len(self._keys.shards)
        objection = format_objection(found, self._keys.namespace, shards=self._setting)
        if not objection and expected not in (None, found.shards):
            objection = (
                f"the namespace {self._keys.namespace} was created with {found.shards} shards meanwhile, "
                f"and {expected} were assumed: open it again"
            )
        if objection:
            self._mismatch = FormatMismatch(f"{objection}.")
            self._on_mismatch(self._mismatch)
        else:
            self._keys.use_shards(found.shards)
            self._assumed = False
