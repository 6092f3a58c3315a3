"""The changes of a transaction that is not committed yet: its operations, how to undo each, its savepoints.

Pure data, testable without a file. Who may change memory when is the store's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pstate.memory import ops

if TYPE_CHECKING:
    import threading

#: What a savepoint remembers: how many operations and inverses there were, which dicts had their key order saved, and
#: how deep its block is; the outermost one has depth 1.
Savepoint = tuple[int, int, set[int], int]


def beginning() -> Savepoint:
    """The mark of the outermost block."""
    return 0, 0, set(), 1


class Pending:
    """What one outermost transaction has done so far."""

    __slots__ = (
        "depth",
        "latest",
        "left",
        "mutex",
        "operations",
        "ordered",
        "since",
        "spoiled",
        "thread",
        "undo",
    )

    thread: int  #: the one that has begun it
    mutex: threading.RLock  #: what it excludes the other threads by
    since: float  #: when it has begun, by the clock of the log

    def __init__(self) -> None:
        self.operations: list[list[Any]] = []  #: with their paths, as they will stand in the record
        self.undo: list[tuple[ops.Node, ops.Op]] = []  #: applied from the last to the first, they restore memory
        self.ordered: set[int] = set()
        #: The operation that has set a scalar in the place of none or of another, by id of the dict and key: as long as
        #: all since the last savepoint were such ones, a second one on the same item may change it instead.
        self.latest: dict[tuple[int, Any], list[Any]] = {}
        self.depth = 1  #: of the innermost block that was not left; 0 when all were
        self.left: frozenset[int] | None = None  #: of the blocks around that one, those that were left before it
        self.spoiled = ""  #: why nothing of it will be committed any more, although blocks of it are open

    def put(self, node: ops.Node, path: list[Any], key: Any, value: Any, old: Any) -> None:
        """Note that the item *key* of the dict *node*, which stands at *path*, is set to a scalar.

        *old* is what it was: another scalar, or `ABSENT`.
        """
        self.undo.append((node, ("delete", key) if old is ops.ABSENT else ("set", key, old)))
        op = self.latest[id(node), key] = ["set", path, key, value]
        self.operations.append(op)

    def add(self, node: ops.Node, path: list[Any], op: ops.Op, prepared: ops.Op) -> None:
        """Note *op* on *node*, which stands at *path*; *prepared* is about to be applied."""
        self.latest.clear()
        self.add_undo(node, prepared)
        self.operations.append([op[0], path, *op[1:]])

    def add_undo(self, node: ops.Node, prepared: ops.Op) -> None:
        """Note how to undo *prepared* on a container that is not in the state (any more): no record tells of it."""
        for inverse in reversed(ops.inverse(node, prepared, self.ordered)):
            self.undo.append((node, inverse))

    def savepoint(self) -> Savepoint:
        """Where `back_to` can go back to. Key orders saved before are not enough for undoing only what comes after.

        The block begins when the caller, who has noted the mark, sets `depth` to that of the mark.
        """
        self.latest.clear()
        mark = len(self.operations), len(self.undo), self.ordered, self.depth + 1
        self.ordered = set()
        return mark

    def release(self, mark: Savepoint) -> None:
        """Forget a savepoint; its changes now belong to what is around it."""
        self.ordered |= mark[2]

    def is_open(self, depth: int) -> bool:
        """Whether the block at *depth* was begun and not left."""
        return depth <= self.depth and not (self.left and depth in self.left)

    def leave(self, depth: int) -> None:
        """Note that the block at *depth* was left. Those inside of it stay open, if they are. Idempotent."""
        if depth < self.depth:
            self.left = (self.left or frozenset()) | {depth}
        elif depth == self.depth:
            depth -= 1
            while self.left and depth in self.left:
                depth -= 1
            self.depth = depth

    def back_to(self, mark: Savepoint) -> list[tuple[ops.Node, ops.Op]]:
        """Forget what came after *mark*; returns the inverses to apply, in order."""
        self.latest.clear()
        operations, undo, self.ordered, _ = mark
        inverses = self.undo[undo:]
        inverses.reverse()
        del self.operations[operations:]
        del self.undo[undo:]
        return inverses
