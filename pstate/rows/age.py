"""How old memory may be for a read that does not ask the server: the option *fresh*."""

from __future__ import annotations

from time import monotonic

from pstate.engine import Memory, View


class Age:
    """Knows when the server was last asked, and how long that answer counts.

    The age of memory counts from the start of a request: what others commit after the start may be missing from the
    answer. While a commit of this process has an unknown outcome, no answer counts.
    """

    __slots__ = ("_memory", "_until", "at_most", "began")

    def __init__(self, memory: Memory, at_most: float) -> None:
        self._memory = memory
        self.at_most = at_most  #: seconds; 0: each read asks
        self._until = float("-inf")
        self.began = 0.0  #: when the commit that is under way was sent

    def view(self) -> View | None:
        """See `engine.Fresh`."""
        return self._memory.view if monotonic() < self._until else None

    def asked(self, began: float) -> None:
        """Memory has become what the server had at *began*, of `monotonic`, or later."""
        self._until = max(self._until, began + self.at_most)

    def commits(self) -> None:
        """A commit is about to be sent: until `committed`, memory may lack a change of ours."""
        self._until = float("-inf")
        self.began = monotonic()

    def committed(self) -> None:
        """Memory has the commit, so it was the newest one when that was sent."""
        self.asked(self.began)

    def expire(self) -> None:
        """The next read asks."""
        self._until = float("-inf")

    def limit(self, at_most: float) -> None:
        """Memory may be *at_most* seconds old, if that is less than before."""
        if at_most < self.at_most:
            self.at_most = at_most
            self.expire()
