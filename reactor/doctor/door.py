"""Tries whether a server lets in somebody who gives no password."""

from dataclasses import replace

import anyio
from redis.exceptions import RedisError

from reactor.backend.clients import CONNECTION_ERRORS, client_at, close_client
from reactor.backend.target import Target
from reactor.doctor.deployment import Address, Server


async def try_door(server: Server, target: Target, address: Address) -> None:
    """Note whether anybody may come in."""
    stranger = client_at(replace(target, username=None, password=None, db=0), address)
    try:
        await stranger.ping()
    except RedisError:
        server.open = False
    except CONNECTION_ERRORS:
        pass
    else:
        server.open = True
    finally:
        with anyio.CancelScope(shield=True):
            await close_client(stranger)
