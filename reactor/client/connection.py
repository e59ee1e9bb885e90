"""One link after another: connects, and comes back by itself as long as the server lets it.

Every end of a link goes through `_after`: come back after a wait, wait until there is something to come back
for (the server closes who is in no room any more, with 4003), or give up for good.
"""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

import anyio

from reactor.client.backoff import Backoff, Waits
from reactor.client.dial import Dialler, closed
from reactor.client.link import Link, LinkLost
from reactor.client.renewal import Renewal
from reactor.client.signals import Signal
from reactor.client.status import Status
from reactor.errors import ConnectionClosed, ReactorError, RequestTimedOut
from reactor.protocol.closing import CloseCode, may_return
from reactor.protocol.messages import AuthOk, ErrorMessage, ServerMessage, ServiceDegraded, ServiceRestored
from reactor.protocol.requests import Request

log = logging.getLogger(__name__)


class Attendant(Protocol):
    """Who has something to do with the links: the stays of a client."""

    def __len__(self) -> int:
        """Return how many stays there are to come back for."""
        ...

    async def return_all(self, link: Link) -> None:
        """Take up a new link; runs beside it."""

    def take(self, link: Link, message: ServerMessage) -> None:
        """Take what the server says."""

    def lost(self) -> None:
        """Take note that the link is gone."""


class Connection:
    """What a client has of its server: a link, or the hope of one.

    Attributes:
        status: How it stands.
        end: Why there will be no link any more, once that is so.
        request_timeout: Seconds that an answer may take, and a heartbeat before the link is held dead.

    """

    def __init__(
        self, dialler: Dialler, *, backoff: Backoff, interval: float | None, request_timeout: float
    ) -> None:
        """interval: seconds between heartbeats, or None for the server's."""
        self.status = Status.CONNECTING
        self.end: ConnectionClosed | None = None
        self.request_timeout = request_timeout
        self._dialler = dialler
        self._waits = Waits(backoff, random.uniform)
        self._interval = interval
        self._attendant: Attendant
        self._on_status: Callable[[], None] = lambda: None
        self._renewal = Renewal(dialler, request_timeout)
        self._link: Link | None = None
        self._called_for = False
        self._changed = Signal()

    def attend(self, attendant: Attendant, on_status: Callable[[], None]) -> None:
        """Name who attends to the links, and what to call when the status has changed."""
        self._attendant, self._on_status = attendant, on_status

    # For those who have something to say.

    async def link(self) -> Link:
        """Return the open link, once there is one.

        Raises:
            ConnectionClosed: There will be none.

        """
        while True:
            if self.end is not None:
                raise ConnectionClosed(str(self.end), self.end.code)
            if self._link is not None and not self._link.lost:
                return self._link
            self._called_for = True
            self._changed.fire()
            await self._changed.wait()

    async def ask(self, request: Request, what: str) -> ServerMessage:
        """Send a request that may well be sent twice, and return its answer.

        Raises:
            RequestTimedOut: There was no answer, or no connection, in time.
            ReactorError: It was refused, or there will be no connection.

        """
        with self.deadline(what):
            while True:
                link = await self.link()
                try:
                    return (await link.ask(request))[0]
                except LinkLost:
                    continue

    def post(self, request: Request) -> None:
        """Send a request that nobody waits for, if there is a link."""
        if self._link is not None:
            self._link.post(request)

    @contextmanager
    def deadline(self, what: str) -> Iterator[None]:
        """Limit what is awaited inside to the time that a request may take."""
        try:
            with anyio.fail_after(self.request_timeout):
                yield
        except RequestTimedOut:
            raise
        except TimeoutError as error:
            url, seconds = self._dialler.url, self.request_timeout
            if self._link is None:
                raise RequestTimedOut(f"no connection to {url} for {what} within {seconds:g} s") from error
            raise RequestTimedOut(f"no answer to {what} from {url} within {seconds:g} s") from error

    def pace(self, interval: float) -> None:
        """Take the server's time between heartbeats (seconds), unless the client has its own."""
        if self._link is not None and self._interval is None:
            self._link.pace(interval)

    # Its life.

    async def open(self) -> Link:
        """Open a link, which `serve` has to be given. Raises as `Dialler.open`."""
        socket, early = await self._dialler.open()
        link = Link(socket, self._take, patience=self.request_timeout)
        if self._interval is not None:
            link.pace(self._interval)
        for message in early:
            self._take(link, message)
        return link

    async def serve(self, link: Link) -> None:
        """Serve a link and those after it, until there will be no other."""
        while True:
            code = await self._use(link)
            if self.end is not None:
                return
            again = await self._after(code, link)
            if again is None:
                return
            link = again

    async def close(self, within: float) -> None:
        """Close in good order, in so many seconds at most; nothing comes back."""
        self.give_up(ConnectionClosed("the client is closed", CloseCode.NORMAL))
        if self._link is not None:
            await self._link.close(within)

    def give_up(self, end: ConnectionClosed) -> None:
        """Have no other link from here on."""
        if self.end is None:
            self.end = end
            self._set(Status.CLOSED)

    async def _use(self, link: Link) -> int:
        self._link = link
        self._called_for = False
        self._set(Status.DEGRADED if link.degraded else Status.CONNECTED)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._attendant.return_all, link)
                tasks.start_soon(self._renewal.run, link)
                code = await link.run()
                tasks.cancel_scope.cancel()
            if self.end is None and self._is_end(code):
                # Before the rooms hear that the link is gone: nothing comes back.
                self.give_up(closed(code, link.close_reason))
        finally:
            self._link = None
            self._attendant.lost()
            await link.abort()
        return code

    async def _after(self, code: int, link: Link) -> Link | None:
        log.info("connection lost (close code %d)", code)
        if code == CloseCode.FORCE_LEAVE and not self._attendant:
            self._set(Status.IDLE)
            while not self._called_for:
                await self._changed.wait()
            return await self._reopen(0.0)
        return await self._reopen(self._waits.lost(code, monotonic() - link.opened_at))

    def _is_end(self, code: int) -> bool:
        renewed = code == CloseCode.UNAUTHORISED and self._dialler.can_renew
        return not (may_return(code) or renewed or code == CloseCode.FORCE_LEAVE)

    async def _reopen(self, wait: float) -> Link | None:
        self._set(Status.RECONNECTING)
        while True:
            await anyio.sleep(wait)
            try:
                return await self.open()
            except ConnectionClosed as error:
                if not may_return(error.code):
                    self.give_up(error)
                    return None
                log.info("%s", error)
            except ReactorError as error:
                log.info("%s", error)
            wait = self._waits.failed()

    def _take(self, link: Link, message: ServerMessage) -> None:
        if isinstance(message, ServiceDegraded | ServiceRestored):
            link.degraded = isinstance(message, ServiceDegraded)
            if self.end is None:
                self._set(Status.DEGRADED if link.degraded else Status.CONNECTED)
            if not link.degraded:
                link.beat_now()
        elif isinstance(message, AuthOk):
            self._renewal.trusted(message)
        elif isinstance(message, ErrorMessage) and message.code == "token_expired" and message.id is None:
            self._renewal.at_once()
        self._attendant.take(link, message)

    def _set(self, status: Status) -> None:
        if status is not self.status:
            self.status = status
            self._on_status()
        self._changed.fire()
