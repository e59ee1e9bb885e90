"""A fresh token ahead of the end of the present one, on the link that is open."""

import logging
from time import monotonic, time

import anyio

from reactor.client.dial import Dialler
from reactor.client.link import Link, LinkLost
from reactor.client.signals import Signal
from reactor.errors import ReactorError
from reactor.protocol.messages import AuthOk
from reactor.protocol.requests import Auth

log = logging.getLogger(__name__)

_AHEAD = 60.0  # seconds before the end; of a token that lives shorter, half of what is left
_AGAIN = 10.0  # seconds after a try that failed


class Renewal:
    """Asks for a fresh token when it is time."""

    def __init__(self, dialler: Dialler, patience: float) -> None:
        """patience: seconds that the answer to a token may take."""
        self._dialler = dialler
        self._patience = patience
        self._due = float("inf")
        self._changed = Signal()

    def trusted(self, message: AuthOk) -> None:
        """The server took a token."""
        left = -1.0 if message.expires_at is None else message.expires_at / 1000 - time()
        # By a clock that is ahead it has run out already: then the server will say when it is time.
        self._set(monotonic() + max(left / 2, left - _AHEAD) if left > 0 else float("inf"))

    def at_once(self) -> None:
        """The server says that the token has run out."""
        self._set(float("-inf"))

    async def run(self, link: Link) -> None:
        """Serve a link; runs beside it."""
        while self._dialler.can_renew:
            if (wait := self._due - monotonic()) > 0:
                with anyio.move_on_after(wait):
                    await self._changed.wait()
                continue
            self._due = float("inf")
            try:
                with anyio.fail_after(self._patience):
                    # Its answer sets the next time.
                    await link.ask(Auth(await self._dialler.fresh_token() or ""))
            except LinkLost:
                return
            except (ReactorError, TimeoutError) as error:
                log.info("the token was not renewed: %s", error)
                self._due = monotonic() + _AGAIN

    def _set(self, due: float) -> None:
        self._due = due
        self._changed.fire()
