"""The transaction of the server that has the lock of a state's row: see `engine.Held`."""

from __future__ import annotations

from time import monotonic

from pstate.engine import Unlock
from pstate.errors import ServerUnavailable
from pstate.rows import server as servers
from pstate.rows.server import Lost, Refused, Server
from pstate.signals import tolerating


class Hold:
    """See `engine.Held`."""

    __slots__ = ("_server", "session", "unlock")

    def __init__(self, server: Server) -> None:
        self._server = server
        self.session = 0  #: the number of the session that has it; 0 where nothing is held
        #: Where nothing is held, a call of C that does nothing.
        self.unlock: Unlock = int

    def take(self) -> None:
        """Before the lock is asked for, in the session that is open."""
        self.unlock = self._roll_back
        self.session = self._server.session

    def end(self) -> None:
        """The transaction is over."""
        self.session = 0
        self.unlock = int

    @property
    def is_lost(self) -> bool:
        """The session that had the lock has ended, and the lock with it."""
        return self._server.session != self.session

    def _roll_back(self) -> None:
        if self.session and not self.is_lost:
            with tolerating(Lost, Refused, ServerUnavailable):
                self._server.end("ROLLBACK", monotonic() + servers.PATIENCE)
        self.end()

    def release(self) -> None:
        """See `engine.Held`."""
        self.unlock()

    def unlock_again(self, error: OSError) -> bool:
        """See `engine.Held`: `unlock` raises nothing of its own."""
        return True

    def drop_lost(self) -> None:
        """See `engine.Held`: a session that was lost is noticed by its number."""
