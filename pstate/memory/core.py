"""What a state and its transactions need of a store, beside what the containers need; and what a watch needs.

Only for type checkers and for a test: at run time, nothing of the package imports this, nor `owner`.
"""

from __future__ import annotations

from typing import Any, Protocol

from pstate.engine import Log
from pstate.memory.owner import Owner
from pstate.memory.transaction import Pending, Savepoint


class Block(Protocol):
    """A block of a transaction, as the store sees it."""

    _changes: Pending | None  #: of its transaction
    _mark: Savepoint | None  #: where it has begun; None for the outermost block


class Core(Owner, Protocol):
    """A store, as a state and the blocks of its transactions see it."""

    @property
    def changes(self) -> Pending | None:
        """The open transaction, if there is one."""
        ...

    @property
    def is_mine(self) -> bool:
        """Whether a transaction of the calling thread is open."""
        ...

    @property
    def log(self) -> Log:
        """Where the commits go."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it is closed, for good."""
        ...

    def vacuum(self) -> None:
        """Write the state anew, without a journal."""
        ...

    def close(self, handle: Any, keep_journal: bool, /) -> None:
        """Let go of the state where *handle* is the last one that has it open."""
        ...

    def detach(self, handle: Any, /) -> None:
        """Forget *handle*, which is about to go without a close."""
        ...

    def enter(self, timeout: float | None, block: Block, /) -> None:
        """Begin *block*, which has its transaction noted. Waits for other writers up to *timeout* seconds."""
        ...

    def end(self, changes: Pending, failed: bool, /) -> Any:
        """Leave the outermost block: commit, or roll back where it *failed*. Returns what is to be settled, or None."""
        ...

    def leave_block(self, changes: Pending, mark: Savepoint, failed: bool, /) -> None:
        """Leave the block that began at *mark*, and undo it where it *failed*."""
        ...

    def end_block(self, changes: Pending, mark: Savepoint | None, /) -> None:
        """Undo the block that began at *mark*. It stays open, and refuses further changes."""
        ...

    def end_amiss(self, changes: Pending, depth: int, failed: bool, /) -> None:
        """Leave the block at *depth*, which is not the innermost one, or whose transaction is spoiled."""
        ...

    def give_up(self, changes: Pending, /) -> None:
        """Leave the outermost block that an asynchronous exception has kept from being left."""
        ...
