"""What a state, its transactions and a watch need of a store, in addition to what the containers need.

Only for type checkers and for a test: at run time, no module of the package imports this one or `owner`.
"""

from __future__ import annotations

from typing import Any, Protocol

from pstate.engine import Log
from pstate.memory.owner import Owner
from pstate.memory.transaction import Pending, Savepoint


class Block(Protocol):
    """A block of a transaction, as the store sees it."""

    _changes: Pending | None  #: of its transaction
    _mark: Savepoint | None  #: where it began; None for the outermost block


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
        """The log that keeps the commits."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it was closed, which is final."""
        ...

    def vacuum(self) -> None:
        """Rewrite the state without a journal."""
        ...

    def close(self, handle: Any, keep_journal: bool, /) -> None:
        """Close the state, if *handle* is the last one that has it open."""
        ...

    def detach(self, handle: Any, /) -> None:
        """Forget *handle*, which is being finalized without a close."""
        ...

    def enter(self, timeout: float | None, block: Block, /) -> None:
        """Begin *block*, which has noted its transaction. Waits for other writers for up to *timeout* seconds."""
        ...

    def end(self, changes: Pending, failed: bool, /) -> Any:
        """Leave the outermost block: commit it, or roll it back if it *failed*. Returns the view to settle, or None."""
        ...

    def leave_block(self, changes: Pending, mark: Savepoint, failed: bool, /) -> None:
        """Leave the block that began at *mark*, and undo it if it *failed*."""
        ...

    def end_block(self, changes: Pending, mark: Savepoint | None, /) -> None:
        """Undo the block that began at *mark*. It stays open, and refuses further changes."""
        ...

    def end_amiss(self, changes: Pending, depth: int, failed: bool, /) -> None:
        """Leave the block at *depth*, which is not the innermost one, or whose transaction is spoiled."""
        ...

    def give_up(self, changes: Pending, /) -> None:
        """Leave the outermost block, after an asynchronous exception has interrupted the first try."""
        ...
