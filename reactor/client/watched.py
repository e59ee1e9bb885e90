"""What the objects of a client that watch something have in common: a status, an end, and a return."""

import random
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import anyio

from reactor.client.delivery import StatusReporter
from reactor.client.open_connection import ConnectionLost, OpenConnection, is_transient
from reactor.client.status import Status
from reactor.errors import ReactorError

_RETRY = 2.0  # Seconds at most, drawn at random.


class Watched(StatusReporter):
    """Something that a client watches until it is closed, also across reconnects.

    kinds: of the callbacks. established: whether it has been up to date at some time.
    """

    def __init__(self, *kinds: str) -> None:
        super().__init__(*kinds)
        self._error: ReactorError | None = None
        self._ended = False
        self.established = False

    @abstractmethod
    def close(self) -> None:
        """Watch no more; the iterators end."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def ended(self) -> ReactorError | None:
        """Wait until it has ended, and return why; None where it was closed, or the client."""
        while not self._ended:
            await self._changed.wait()
        return self._error

    # Called by the client.

    def end(self, error: ReactorError | None) -> None:
        """End; the first reason counts. error: None when it was closed."""
        if not self._ended:
            self._ended, self._error = True, error
            self._on_end()
            self.refresh_status()

    async def ask_until_answered(
        self, connection: OpenConnection, ask: Callable[[], Awaitable[None]], *, timeout: float
    ) -> bool:
        """Ask on a new connection, or after a gap, until there is an answer; return whether there was one.

        An error that would come again ends it. timeout: seconds for an answer.
        """
        while not (self._ended or connection.lost):
            try:
                with anyio.fail_after(timeout):
                    await ask()
            except ConnectionLost:
                return False
            except (ReactorError, TimeoutError) as error:
                if isinstance(error, ReactorError) and not is_transient(error):
                    self.end(error)
                    return False
                await anyio.sleep(random.uniform(0.0, _RETRY))  # noqa: S311 - jitter, not a secret
            else:
                return True
        return False

    # Of the subclasses.

    @abstractmethod
    def _on_end(self) -> None:
        """Release what belongs to it."""

    @abstractmethod
    def _connection_status(self) -> Status | None:
        """Return the status of the connection on which it is up to date; None where it is not."""

    def _present_status(self) -> Status:
        if self._ended:
            return Status.CLOSED
        lost = Status.RECONNECTING if self.established else Status.CONNECTING
        return self._connection_status() or lost
