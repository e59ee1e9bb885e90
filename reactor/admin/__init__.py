"""The admin port: an HTTP API for operators and back ends, a live page, metrics. Off unless it is set."""

from contextlib import AbstractAsyncContextManager, nullcontext

from reactor.server.node import Node


def serving_admin(node: Node) -> AbstractAsyncContextManager[int | None]:
    """Serve the admin port of a node, where its settings ask for it. Raises AddressInUse or SettingError."""
    if node.settings.admin_port is None:
        return nullcontext()
    from reactor.admin.server import serving  # noqa: PLC0415 - most nodes need none of it

    return serving(node)
