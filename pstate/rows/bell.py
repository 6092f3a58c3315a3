"""Wakes a watch: the server tells of each commit by NOTIFY, where that works, and else a watch asks again and again.

Nothing depends on what is told: a look finds the commits by their revisions, and there is a look at least every
LONGEST seconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

from pstate import engine
from pstate.errors import ServerUnavailable
from pstate.rows import statements
from pstate.rows.address import Address
from pstate.rows.link import Link, Lost, Refused
from pstate.signals import expected

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

    def __init__(self, address: Address, store: str, ring: Callable[[], None], say: Callable[[str], None]) -> None:
        self._store = store
        self._ring = ring
        self._say = say  #: to the log
        self._link = Link(address, self._listen)
        #: The thread that has it uses the session, for one request at most: nobody waits for it.
        self._turn = threading.Lock()
        self._is_over = False
        self._pause = PAUSE_FIRST
        self._next = 0.0  #: when there is something to tell the server, of `monotonic`

    def wait(self, seconds: float) -> None:
        """See `engine.Bell`."""
        try:
            if monotonic() >= self._next and self._renew():
                return
            with self._socket() as socket:
                if socket is None:
                    time.sleep(min(seconds, POLL))
                else:
                    waiting = select.poll()
                    waiting.register(socket, select.POLLIN)
                    waiting.poll(int(min(seconds, LONGEST) * 1000))
            self._hear()
        finally:
            self._ring()

    async def wait_async(self, seconds: float) -> None:
        """See `engine.Bell`. Where it is cancelled, a request goes on in its thread, and ends in time."""
        import asyncio

        try:
            if monotonic() >= self._next and await asyncio.to_thread(self._renew):
                return
            with self._socket() as socket:
                if socket is None:
                    await asyncio.sleep(min(seconds, POLL))
                else:
                    await _readable(socket, min(seconds, LONGEST))
            self._hear()
        finally:
            self._ring()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether the session is ours alone now. If the bell is closed meanwhile, we end the session."""
        if not self._turn.acquire(False):
            yield False
            return
        try:
            yield not self._is_over
        finally:
            self._turn.release()
            if self._is_over:
                self.close()

    def _renew(self) -> bool:
        """Whether the server was asked. What was committed before must be looked for, since nobody has told us."""
        with self._alone() as is_ours:
            return is_ours and self._prepare()

    @contextlib.contextmanager
    def _socket(self) -> Iterator[int | None]:
        """What can be read when the server tells something. It is a descriptor of its own: the session may end."""
        with self._alone() as is_ours:
            socket = os.dup(self._link.descriptor) if is_ours and self._link.is_up else None
        try:
            yield socket
        finally:
            if socket is not None:
                os.close(socket)

    def _hear(self) -> None:
        with self._alone() as is_ours:
            if is_ours:
                self._link.hear(0)

    def _prepare(self) -> bool:
        """Listen, and tell the server so again. Whether it was told."""
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
        return True

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

    def close(self) -> None:
        """End the session, or leave that to the thread that uses it now."""
        self._is_over = True
        if self._turn.acquire(False):
            try:
                self._link.drop()
            finally:
                self._turn.release()

    def forget(self) -> None:
        """In a forked child: the session is the parent's."""
        self._link.forget()
        self._turn = threading.Lock()
        self._next = 0.0


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")


async def _readable(descriptor: int, seconds: float) -> None:
    """Return when there is something to read from *descriptor*, or after *seconds*."""
    import asyncio

    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        loop.add_reader(descriptor, tell)
    except NotImplementedError:  # a loop that has none
        await asyncio.sleep(min(seconds, POLL))
        return
    try:
        await asyncio.wait([ready], timeout=seconds)  # `wait_for` of Python 3.11 may lose a cancellation
    finally:
        loop.remove_reader(descriptor)


if TYPE_CHECKING:
    _: type[engine.Bell] = Bell
