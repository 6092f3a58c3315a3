"""The changes of a transaction that is not committed yet: its operations, how to undo each, its savepoints.

Pure data, testable without a file. The store decides which thread may change memory, and when.
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
    """The changes that one outermost transaction has made so far."""

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

    thread: int  #: the one that began it
    mutex: threading.RLock  #: the lock with which it excludes the other threads
    since: float  #: when it began, by the clock of the log

    def __init__(self) -> None:
        self.operations: list[list[Any]] = []  #: with their paths, as the record will have them
        self.undo: list[tuple[ops.Node, ops.Op]] = []  #: applied from the last to the first, they restore memory
        self.ordered: set[int] = set()
        #: By id of the dict and key, the operation that has set a scalar where there was no value or another scalar. As
        #: long as all operations since the last savepoint are of this kind, a second one on the same item changes it.
        self.latest: dict[tuple[int, Any], list[Any]] = {}
        self.depth = 1  #: of the innermost block that was not left; 0 if all were
        self.left: frozenset[int] | None = None  #: the depths of the blocks around that one that were left before it
        self.spoiled = ""  #: why none of it will be committed, although blocks of it are open

    def put(self, node: ops.Node, path: list[Any], key: Any, value: Any, old: Any) -> None:
        """Note that the item *key* of the dict *node*, which is at *path*, is set to a scalar.

        *old* is its value before: another scalar, or `ABSENT`.
        """
        self.undo.append((node, ("delete", key) if old is ops.ABSENT else ("set", key, old)))
        op = self.latest[id(node), key] = ["set", path, key, value]
        self.operations.append(op)

    def add(self, node: ops.Node, path: list[Any], op: ops.Op, prepared: ops.Op) -> None:
        """Note *op* on *node*, which is at *path*; *prepared* is about to be applied."""
        self.latest.clear()
        self.add_undo(node, prepared)
        self.operations.append([op[0], path, *op[1:]])

    def add_undo(self, node: ops.Node, prepared: ops.Op) -> None:
        """Note how to undo *prepared* on a container that is not in the state, so that no record contains it."""
        for inverse in reversed(ops.inverse(node, prepared, self.ordered)):
            self.undo.append((node, inverse))

    def savepoint(self) -> Savepoint:
        """A mark for `back_to`. Key orders that were saved before it do not suffice to undo only what comes after.

        The block begins when the caller, after noting the mark, sets `depth` to that of the mark.
        """
        self.latest.clear()
        mark = len(self.operations), len(self.undo), self.ordered, self.depth + 1
        self.ordered = set()
        return mark

    def release(self, mark: Savepoint) -> None:
        """Forget a savepoint; its changes now belong to the block around it."""
        self.ordered |= mark[2]

    def is_open(self, depth: int) -> bool:
        """Whether the block at *depth* was begun and not left."""
        return depth <= self.depth and not (self.left and depth in self.left)

    def leave(self, depth: int) -> None:
        """Note that the block at *depth* was left. Open blocks inside it stay open. Idempotent."""
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
