"""What the containers need of their owner: a store, or what a state has in its place when it is not open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pstate.engine import Fresh

if TYPE_CHECKING:
    from threading import RLock

Intent: TypeAlias = tuple[Sequence[tuple[Any, ...]], Any]
"""What a call is to do: the operations that make its change, and what it returns."""


class Owner(Protocol):
    """A store, as a container sees it."""

    @property
    def path(self) -> str:
        """The state file, for messages."""
        ...

    @property
    def lock_timeout(self) -> float | None:
        """How many seconds a change waits for other writers; None for ever."""
        ...

    @property
    def fresh(self) -> Fresh:
        """Says which commit memory is, if that is the newest one; None where only `read` can tell.

        One value may be taken without a lock if `view` is the same object afterwards.
        """
        ...

    @property
    def view(self) -> object:
        """Which commit memory is; None while it is being changed. No two commits have the same object."""
        ...

    @property
    def root(self) -> Any:
        """The container that is the state itself."""
        ...

    @property
    def mutex(self) -> RLock:
        """What excludes the other threads of this process."""
        ...

    def read(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call *function* on memory while it is the newest commit and nobody changes it."""
        ...

    def alone(self, timeout: float | None, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call *function* while no other thread of this process is at the state."""
        ...

    def put(self, node: Any, key: Any, value: Any, /) -> None:
        """Set the item *key* of the dict *node* to *value*, both checked, in one commit."""
        ...

    def mutate(self, node: Any, plan: Callable[..., Intent], /, *args: Any) -> Any:
        """Call *plan* on *node* under the lock, and make what it intends one commit; returns what it says.

        A plan looks at memory, and changes nothing. It may be called again, after another process' commit.
        """
        ...
