"""What the containers need of their owner: a store, or the object that replaces it while a state is not open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pstate.engine import Fresh

if TYPE_CHECKING:
    from threading import RLock

Intent: TypeAlias = tuple[Sequence[tuple[Any, ...]], Any]
"""The operations that make the change of a call, and what the call returns."""


class Owner(Protocol):
    """A store, as a container sees it."""

    @property
    def path(self) -> str:
        """The state file, for messages."""
        ...

    @property
    def lock_timeout(self) -> float | None:
        """How many seconds a change waits for other writers; None is without a limit."""
        ...

    @property
    def fresh(self) -> Fresh:
        """A function that returns `view` if memory is the newest commit, and None if only `read` can find that out.

        A single value may be taken without a lock if `view` is the same object afterwards.
        """
        ...

    @property
    def view(self) -> object:
        """The commit that memory is at; None while it is being changed. Each commit has an object of its own."""
        ...

    @property
    def root(self) -> Any:
        """The container that is the state itself."""
        ...

    @property
    def mutex(self) -> RLock:
        """The lock that excludes the other threads of this process."""
        ...

    def read(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call *function* on memory while it is the newest commit and no thread changes it."""
        ...

    def alone(self, timeout: float | None, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call *function* while no other thread of this process uses the state."""
        ...

    def put(self, node: Any, key: Any, value: Any, /) -> None:
        """Set the item *key* of the dict *node* to *value*, both checked, in one commit."""
        ...

    def mutate(self, node: Any, plan: Callable[..., Intent], /, *args: Any) -> Any:
        """Call *plan* on *node* under the lock, commit its operations as one, and return its result.

        A plan looks at memory, and changes nothing. It may be called again, after another process' commit.
        """
        ...
