"""Wakes a watch: the server tells of each commit by NOTIFY, where that works, and else a watch asks again and again.

Nothing depends on what is told: a look finds the commits by their revisions, and there is a look at least every
LONGEST seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

from pstate import engine
from pstate.errors import ServerUnavailable
from pstate.logger import Logger
from pstate.rows import statements
from pstate.rows.address import Address
from pstate.rows.link import Link, Lost, Refused
from pstate.signals import expected

logger = Logger("pstate.rows.bell")

#: How long a watch waits at most where the server tells of commits, and where it does not, in seconds.
LONGEST, POLL = 1.0, 0.05
#: How long the server is given to begin, in seconds, and to tell us of what we have sent ourselves.
PATIENCE = 2.0
#: Every so many seconds, the server is told that somebody watches. `statements.WATCHED` holds for three times as long.
RENEWED = 20.0
#: Pauses between attempts, in seconds.
PAUSE_FIRST, PAUSE_AT_MOST = 1.0, 60.0


class Bell:
    """See `engine.Bell`: of one watch, in a session of its own, which begins with the first wait."""

    def __init__(self, address: Address, store: str, ring: Callable[[], None]) -> None:
        self._address = address
        self._store = store
        self._ring = ring
        self._link = Link(address, self._listen)
        #: Another thread that waits for the same watch must not read from the same session.
        self._turn = threading.Lock()
        self._pause = PAUSE_FIRST
        self._next = 0.0  #: when there is something to tell the server, of `monotonic`
        self._said = ""

    def wait(self, seconds: float) -> None:
        """See `engine.Bell`."""
        if not self._turn.acquire(False):
            time.sleep(min(seconds, POLL))
            return
        try:
            if monotonic() >= self._next and self._prepare():
                return  # what was committed before the server knew that we listen must be looked for
            if self._link.is_up:
                self._link.hear(min(seconds, LONGEST))
            else:
                time.sleep(min(seconds, POLL))
        finally:
            self._turn.release()
            self._ring()

    async def wait_async(self, seconds: float) -> None:
        """See `engine.Bell`."""
        import asyncio

        if not self._turn.acquire(False):
            await asyncio.sleep(min(seconds, POLL))
            return
        try:
            if monotonic() >= self._next and await asyncio.to_thread(self._prepare):
                return
            if self._link.is_up and await _readable(self._link.descriptor, min(seconds, LONGEST)):
                self._link.hear(0)
            elif not self._link.is_up:
                await asyncio.sleep(min(seconds, POLL))
        finally:
            self._turn.release()
            self._ring()

    def _prepare(self) -> bool:
        """Listen, and tell the server so again. Whether that has begun just now."""
        is_new = not self._link.is_up
        until = monotonic() + PATIENCE
        try:
            self._link.connect(until)
            ((is_told,),) = self._link.ask(statements.WATCHED, (self._store,), until)
        except expected(ServerUnavailable, Lost, Refused) as error:
            self._link.drop()
            self._next = monotonic() + self._pause
            self._pause = min(2 * self._pause, PAUSE_AT_MOST)
            self._say(f"watches ask the server for changes every {POLL * 1000:.0f} ms, because {_reason(error)}")
            return False
        # Where somebody has the lock of the row, we are not to wait for it.
        self._next = monotonic() + (RENEWED if is_told == "t" else LONGEST)
        self._pause = PAUSE_FIRST
        self._say("the server tells watches of each commit")
        return is_new

    def _listen(self) -> None:
        until = monotonic() + PATIENCE
        ((backend, channel),) = self._link.ask(statements.CHANNEL, (self._store,), until)
        if int(backend) != self._link.backend:
            raise Refused("", "a pooler shares sessions, so the server cannot tell this one of changes")
        self._link.ask_all(f"LISTEN {channel}", until)
        token = str(uuid4())
        self._link.ask(statements.NOTIFY, (channel, token), until)
        while not self._link.hear(max(0.0, until - monotonic()), token):
            if monotonic() >= until:
                raise Refused("", "a notification that was sent has not arrived")

    def _say(self, what: str) -> None:
        if what != self._said:
            self._said = what
            logger.info("%s: %s", self._address.shown, what)

    def close(self) -> None:
        """End the session. The next wait begins another."""
        self._link.drop()
        self._next = 0.0

    def forget(self) -> None:
        """In a forked child: the session is the parent's."""
        self._link.forget()
        self._turn = threading.Lock()
        self._next = 0.0


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")


async def _readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read from *descriptor* within *seconds*."""
    import asyncio

    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except NotImplementedError:  # a loop that has none
        await asyncio.sleep(min(seconds, POLL))
        return True
    try:
        await asyncio.wait_for(ready.wait(), seconds)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


if TYPE_CHECKING:
    _: type[engine.Bell] = Bell
