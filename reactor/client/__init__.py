"""The Python client: join rooms, see who is there, and stay there through whatever the network does."""

from reactor.client.backoff import Backoff
from reactor.client.client import Client
from reactor.client.feed import Events
from reactor.client.room import Room
from reactor.client.status import Status

__all__ = ["Backoff", "Client", "Events", "Room", "Status"]
