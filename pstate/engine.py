"""The door between the store and an engine, which keeps the commits of a state: what each side promises the other.

An engine brings commits into one order, which is the same for all that have the address open. One engine is the file
(`file.log`); another one is the memory of this process, for tests (`testing.memory`). The store decides which thread
may change memory, and when; an engine never sees a container. `tests/engine/conformance.py` checks these promises for
each engine.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

#: A state in built-in types.
State: TypeAlias = dict[Any, Any]
#: One commit, decoded: each operation is its name, the path of the container, and what it needs (`memory.ops`).
Operations: TypeAlias = list[Any]
#: One commit as the text that every engine keeps: see `text.records`.
Body: TypeAlias = str
#: A boundary between two commits. Only the engine looks into it. The store compares two by `is`, which says whether
#: memory was changed in between.
View: TypeAlias = Any

#: By this process, by another one, by a person.
Origin: TypeAlias = Literal["here", "other", "edit"]


class Overtaken(Exception):
    """Another commit was made since memory was brought up to date. Nothing was written: plan the change again."""


class Leg(NamedTuple):
    """The changes within one document: its records, perhaps after the state that the document begins with."""

    state: State | None  #: the state that the document begins with; None if it is the one before
    origin: Origin | None  #: of that state
    records: Iterable[Operations]
    before: int  #: the number of the last record before them
    others: frozenset[int]  #: the numbers of the records of other processes
    unknown: int  #: up to this number, the origin of records is unknown

    def origin_of(self, number: int) -> Origin | None:
        """The origin of record *number*; None if it is unknown."""
        if number <= self.unknown:
            return None
        return "other" if number in self.others else "here"


class Bell(Protocol):
    """Waits until a look may find something. It may return early, and for nothing; and it returns in time to look
    for what nobody has told of.
    """

    def wait(self, seconds: float) -> None:
        """Wait for at most *seconds*."""
        ...

    async def wait_async(self, seconds: float) -> None:
        """`wait`, without blocking the loop that runs this."""
        ...


class Trail(Protocol):
    """The notes for one watch: the changes of the state since they were begun. The engine writes them."""

    #: An error that only the following thread has met. The next look of the watch raises it.
    conflict: Exception | None

    @property
    def bell(self) -> Bell | None:
        """What wakes the watch; None where a look costs so little that the watch looks again and again."""
        ...

    def collect(self) -> int:
        """Note the commits up to memory's view; returns the number of notes."""
        ...

    def take(self, number: int | None = None) -> list[Leg]:
        """Remove and return the first *number* of the notes, or all."""
        ...


class Memory(Protocol):
    """The state in memory, which an engine brings up to date. A method that was interrupted may be called again."""

    #: The boundary that memory is at (I4), or None while it is being changed or cannot be trusted. It is here, not in
    #: the engine, because every read of a value looks at it twice.
    view: View | None

    def apply(self, operations: Operations) -> None:
        """Apply one committed record. Raises LookupError, TypeError or ValueError when it does not fit."""
        ...

    def adopt(self, state: State) -> None:
        """Become *state*, but keep the container objects that are at the same places."""
        ...

    def plain(self) -> State:
        """A deep copy of the state in built-in types."""
        ...

    def replay(self, state: State, records: Iterable[Operations]) -> State:
        """*state* after *records*; memory is not changed. Raises as `apply`."""
        ...


class Unlock(Protocol):
    """A function without arguments, in an attribute. Type checkers would take a plain Callable for a method."""

    def __call__(self) -> object: ...


class Fresh(Protocol):
    """The question whether memory is new enough: its view, or None. See `Log.freshness`."""

    def __call__(self) -> View | None: ...


class Held(Protocol):
    """The locks that `begin` has taken."""

    #: Releases them. Harmless if nothing is held, and if it is called twice. It is a C function, because it runs in a
    #: `finally`, where a Python function could be cut off before its first instruction.
    unlock: Unlock

    def release(self) -> None:
        """`drop_lost`, then `unlock`. An exception may come before its first instruction: then call it again."""
        ...

    def unlock_again(self, error: OSError) -> bool:
        """Release after `unlock` has raised *error*; returns whether to raise that."""
        ...

    def drop_lost(self) -> None:
        """Forget locks that the system has taken away while other code ran: they must not be released any more."""
        ...


class Log(Protocol):
    """Commits in one order, which is the same for all that have the address open.

    The store holds its mutex during every call except `freshness`, `settle` and `settle_what_is_read`. A view that a
    method returns becomes memory's only by `publish`. If a method raises an exception that it does not promise, such as
    one of a signal handler, memory's view stays None, and the next `refresh` finds what was committed.
    """

    #: Whether a commit counts, and a value that was read, only after `settle`. A plain attribute: each commit reads it.
    settles: bool
    #: How long a method without a timeout waits for other writers, in seconds; None is without a limit.
    lock_timeout: float | None

    @property
    def hold(self) -> Held:
        """The locks that `begin` has taken: one object for the life of the log, and a plain attribute."""
        ...

    @property
    def address(self) -> str:
        """The address of the state, for messages."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether nothing can be committed here."""
        ...

    @property
    def has_followers(self) -> bool:
        """Whether a thread has to keep each trail up to date, because others wait for it. False in a simulation, which
        does not see threads.
        """
        ...

    # A commit

    def begin(self, timeout: float | None) -> None:
        """Bring memory to a commit on which a change can be planned, and planned again after `Overtaken`.

        A file locks here. An engine that compares and sets need not lock: it waits here for the blocks of others. If
        asking takes another round trip, it may leave memory as it is: then `confirm` asks. After `Overtaken`, memory
        is the newest commit. *timeout*: None, or less than 0, is without a limit. If the store plans again, the time
        begins again. Whether this raises or not, the store calls ``hold.unlock()``. Raises LockTimeout, ReadOnlyError,
        InvalidEditError, EditConflict, StoreFailedError or WriteError.
        """
        ...

    def confirm(self) -> None:
        """After `begin`: memory is the newest commit. Raises Overtaken if it was not; it is then.

        The store asks before it refuses a change, or finds that there is nothing to commit.
        """
        ...

    def begin_block(self, timeout: float | None) -> None:
        """`begin` for a block of the program's code, which cannot be repeated: others cannot commit until its commit.

        Without a commit, they cannot until `unlock`.
        """
        ...

    def begin_rewrite(self, timeout: float | None) -> None:
        """`begin_block` for `vacuum` and `save`, also while commits are refused."""
        ...

    def prepare(self) -> View:
        """The view that the record of a block will follow. Called before memory changes in the block.

        Raises WriteError and EditConflict.
        """
        ...

    def commit(self, body: Body, after: View | None = None) -> View:
        """Write one record that follows *after*, or memory's view; returns the view after the record.

        It does not wait. Raises Overtaken if others have committed or begun a block since `begin`, which cannot happen
        in a block. Raises WriteError or EditConflict. Nothing was committed then.
        """
        ...

    def publish(self, view: View) -> None:
        """Make *view* memory's view, for all threads, after the record up to it was applied.

        Then do what is due, such as a vacuum. Raises EditConflict and DurabilityUnknown; the commit is valid then.
        """
        ...

    def settle(self, view: View) -> None:
        """Return when the commits up to *view* are on stable storage. Raises DurabilityUnknown."""
        ...

    def settle_what_is_read(self, view: View | None) -> None:
        """`settle` for a reader: a failure is logged, and writes are refused from now on."""
        ...

    def stricter(self) -> None:
        """Promise durability "power" from now on: `settles` is true, unless the log is read-only."""
        ...

    def fresher(self, seconds: float) -> None:
        """Promise from now on that memory is at most *seconds* old for a read, if that is less than before."""
        ...

    # Reading

    def freshness(self) -> Fresh:
        """The function that every read calls first, without the mutex. It returns memory's view if memory is as new as
        this engine promises, else None. If it returns None although nothing is new, `refresh` looks. The store binds it
        once, and again after `stricter` and `fresher`.
        """
        ...

    def open(self) -> None:
        """Bring memory to the newest commit; begin an empty state if none exists. Does not wait for a writer.

        Raises StateFileError, MissingPathError, NotAFileError, ReadOnlyError or UnreadableError.
        """
        ...

    @property
    def at_rest(self) -> bool:
        """Whether nothing is open: not opened yet, or closed by `rest`."""
        ...

    def refresh(self) -> None:
        """Bring memory to the newest commit, also if its view is None, and after `rest`.

        It may leave memory as it is while that is as new as *fresh* asks for, see `Engine.log`. Never waits for another
        writer. Memory keeps its view if nothing is new. Raises EditConflict and UnreadableError.
        """
        ...

    def renewed(self, view: View) -> View:
        """A new object that is equal to *view*, for memory that was changed and changed back."""
        ...

    # The rest of its life

    def vacuum(self) -> None:
        """Make one document of all records, after `begin_rewrite`. Memory and its containers stay as they are.

        Raises WriteError; then nothing was changed.
        """
        ...

    def save(self, original: State, text: bytes) -> list[str]:
        """Merge the document *text*, which a person made from a copy with *original*, with the state.

        Called after `begin_rewrite`. Afterwards memory is the result, and a trail notes it as an "edit". Returns a
        sentence for each value of a program that gave way. Raises InvalidStateError if *text* is not a state, and as
        `vacuum`.
        """
        ...

    def tidy(self, *, keep_journal: bool = False) -> None:
        """Leave the state tidy for the next program, or, with *keep_journal*, do only what is necessary. A failure is
        logged.
        """
        ...

    def rest(self) -> None:
        """Close what is open: memory's view is None. The next `refresh` or `begin` opens it again."""
        ...

    def forget(self) -> None:
        """In a forked child: drop what belongs to the parent, with no effect on the parent."""
        ...

    def check(self) -> None:
        """Assert the invariants that hold between the store's operations. For tests.

        Raises AssertionError, with the number that the rule has in docs/guarantees.md.
        """
        ...

    # Its name

    def follow_links(self) -> None:
        """Called when the address is opened again. If it now means another state, the next read or change looks."""
        ...

    def leads_to(self, name: Any) -> bool:
        """Whether the state is at present the one that `Engine.name` calls *name*."""
        ...

    def stay_at(self, name: Any) -> None:
        """Follow *name* from now on, instead of the address."""
        ...

    # The history of the state

    @property
    def generation(self) -> str | None:
        """The generation of the journal with the commits; None before the first commit since the last vacuum."""
        ...

    @property
    def promises_power(self) -> bool:
        """Whether everything that is read from the journal is on stable storage."""
        ...

    @property
    def journal(self) -> object:
        """The object for the place of the newest commits: another one after they were moved. Compare it by `is`."""
        ...

    def records(self) -> tuple[State, Iterable[Operations]]:
        """The state of the last document, and the commits since then, each decoded when it is reached."""
        ...

    def history(self) -> tuple[State, int, Iterable[Operations]]:
        """The oldest state from which all commits are kept, the number of its commit, and the commits after it."""
        ...

    def trail(self, history: bool) -> Trail:
        """Notes of the changes of the state after memory's view; with *history*, after the state of `history`.

        They are complete only from `follow` to `unfollow`.
        """
        ...

    def follow(self, trail: Any) -> object:
        """Keep *trail* up to date, in this process; returns the `journal`. May be called again after a fork."""
        ...

    def unfollow(self, trail: Any = None) -> None:
        """End *trail*, and those without a reference. Harmless for one that is not followed."""
        ...


class Engine(Protocol):
    """Opens the logs of one kind of address. Hashable: the same address with another engine is another state."""

    @property
    def key(self) -> Hashable:
        """Equal for engines that keep the same states. It keeps nothing alive, so that it can be a key of a table."""
        ...

    def log(
        self,
        address: str,
        memory: Memory,
        *,
        settles: bool,
        lock_timeout: float | None,
        locking: object,
        read_only: bool,
        fresh: float = 0.0,
    ) -> Log:
        """The log of *address*, not open yet. *locking*: the kind of lock, if the engine has a choice.

        *fresh*: how many seconds memory may be old for a read, where asking for news takes long. It never lacks a
        commit of this process, and never goes back to an earlier commit. With 0, each read asks. An engine that asks
        with each read anyway ignores it.
        """
        ...

    def name(self, address: str) -> Hashable:
        """The name of the state that *address* means at present, equal for all addresses of one state."""
        ...

    def close_inherited(self) -> None:
        """In a forked child, after `Log.forget`: close what another thread of the parent was opening."""
        ...
