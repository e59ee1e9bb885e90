"""The admin port: an HTTP API for operators and back ends, a live overview, metrics. Off by default."""

from contextlib import AbstractAsyncContextManager

from reactor.server.node import Node


def serving_admin(node: Node) -> AbstractAsyncContextManager[int]:
    """Serve the admin port that the node's settings name. Raises AddressInUse or SettingError."""
    from reactor.admin.uvicorn_server import serving  # noqa: PLC0415 - most nodes have no admin port

    return serving(node)
