"""The door between the store and an engine, which keeps the commits of a state: what each side promises the other.

An engine brings commits into one order, which all see that have the same address open. The file is one (`file.log`),
and so is the memory of this process, for tests (`testing.memory`). The store decides who may change memory, and when;
an engine never sees a container. `tests/engine/conformance.py` holds each engine to what is promised here.
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
#: A boundary between two commits. Opaque: only the engine looks into it, for the store it is an object that is compared
#: by `is`, which tells whether memory was changed in between.
View: TypeAlias = Any

#: By this process, by another one, by a person.
Origin: TypeAlias = Literal["here", "other", "edit"]


class Overtaken(Exception):
    """Somebody has committed since memory was brought up to date. Nothing was written: plan the change anew."""


class Leg(NamedTuple):
    """What the state did in one document: some records, perhaps after it had become what that says."""

    state: State | None  #: what it had become; None where it went on as it was
    origin: Origin | None  #: of that
    records: Iterable[Operations]
    before: int  #: the number of the last record before them
    others: frozenset[int]  #: the numbers of those that are of other processes
    unknown: int  #: up to this number, nobody knows whose they are

    def origin_of(self, number: int) -> Origin | None:
        """Who has committed record *number*; None where nobody knows."""
        if number <= self.unknown:
            return None
        return "other" if number in self.others else "here"


class Trail(Protocol):
    """The notes for one watch: what has become of the state since they were begun. The engine writes them."""

    #: What nobody but the thread that follows was told. The next one who asks raises it.
    conflict: Exception | None

    def collect(self) -> int:
        """Note what was committed up to memory's view; returns how many notes there are."""
        ...

    def take(self, number: int | None = None) -> list[Leg]:
        """The first *number* of the notes since the last call, or all."""
        ...


class Memory(Protocol):
    """What an engine brings up to date. Every method may be called again after it was interrupted half way."""

    #: The boundary that memory is at (I4), or None while it is being changed or must not be trusted. Here and not in
    #: the engine, because every read of a value looks at it twice.
    view: View | None

    def apply(self, operations: Operations) -> None:
        """Apply one committed record. Raises LookupError, TypeError or ValueError when it does not fit."""
        ...

    def adopt(self, state: State) -> None:
        """Become *state*, keeping the containers that are at the same places."""
        ...

    def plain(self) -> State:
        """A deep copy of the state in built-in types."""
        ...

    def replay(self, state: State, records: Iterable[Operations]) -> State:
        """What *state* becomes by *records*; memory is not touched. Raises as `apply`."""
        ...


class Unlock(Protocol):
    """A call without arguments, in an attribute. Type checkers would take a plain Callable there for a method."""

    def __call__(self) -> object: ...


class Fresh(Protocol):
    """The question whether memory is new enough: its view, or None. See `Log.freshness`."""

    def __call__(self) -> View | None: ...


class Held(Protocol):
    """What `begin` has taken."""

    #: Gives it back. Harmless when nothing is held, and when it is called twice. A call of C: it runs in a `finally`,
    #: where a function of Python's could be cut off before its first instruction.
    unlock: Unlock

    def release(self) -> None:
        """`unlock`, after what cannot be given back any more was forgotten. An exception may come before its first
        instruction: then call it again.
        """
        ...

    def unlock_again(self, error: OSError) -> bool:
        """Give it back after `unlock` has raised *error*; returns whether to raise that."""
        ...

    def drop_lost(self) -> None:
        """Forget what the system has taken away while somebody's code ran: it must not be given back any more."""
        ...


class Log(Protocol):
    """Commits in one order, seen by all who have the same address open.

    The store holds its mutex in every call but that of `freshness`, `settle` and `settle_what_is_read`. A view that a
    method returns is not memory's before `publish`. Where a method raises an exception that it does not promise, such
    as one of a signal handler, memory's view stays None, and the next `refresh` finds out what was committed.
    """

    #: A commit is acknowledged, and what is read acted on, only after `settle`. A plain attribute: each commit asks it.
    settles: bool
    #: How long to wait for other writers where a method is not told, in seconds; None for ever.
    lock_timeout: float | None

    @property
    def hold(self) -> Held:
        """What `begin` has taken; the same object for the life of the log, and a plain attribute."""
        ...

    @property
    def address(self) -> str:
        """Where the state is, for people."""
        ...

    @property
    def read_only(self) -> bool:
        """Nothing can be committed here."""
        ...

    @property
    def has_threads(self) -> bool:
        """False where threads of its own would be outside of what is looked at: in a simulation."""
        ...

    # A commit

    def begin(self, timeout: float | None) -> None:
        """Bring memory to a commit that a change can be planned on, and planned anew after `Overtaken`.

        A file locks here. An engine that compares and sets need not: it waits here for the blocks of others, and takes
        nothing. Where asking costs as much as committing, it may leave memory as it is: then `confirm` asks. After
        `Overtaken`, memory is the newest commit. *timeout*: None, or less than 0, is for ever. Where the store plans
        anew, it counts anew. Whether this raises or not, the store calls ``hold.unlock()``. Raises LockTimeout,
        ReadOnlyError, InvalidEditError, EditConflict, StoreFailedError or WriteError.
        """
        ...

    def confirm(self) -> None:
        """After `begin`: memory is the newest commit. Raises Overtaken where it was not; it is then.

        The store asks before it refuses a change, or finds that there is nothing to commit.
        """
        ...

    def begin_block(self, timeout: float | None) -> None:
        """`begin` for a block of somebody's code, which cannot be run again: until its commit, nobody else commits.

        Nor does anybody until `unlock`, where there is no commit.
        """
        ...

    def begin_rewrite(self, timeout: float | None) -> None:
        """`begin_block` for `vacuum` and `save`, also where commits are refused."""
        ...

    def prepare(self) -> View:
        """Before memory changes in a block: the view that its record will follow. Raises WriteError, EditConflict."""
        ...

    def commit(self, body: Body, after: View | None = None) -> View:
        """Write one record that follows *after*, or memory's view; returns the view after the record.

        It waits for nobody. Raises Overtaken, but not in a block: somebody has committed since `begin`, or has begun a
        block. Raises WriteError or EditConflict. Nothing was committed then.
        """
        ...

    def publish(self, view: View) -> None:
        """The record up to *view* was applied: memory's view is *view* from now on, for all threads.

        Then do what is due, such as a vacuum. Raises EditConflict and DurabilityUnknown of the commit, which is valid.
        """
        ...

    def settle(self, view: View) -> None:
        """Return when the commits up to *view* are on stable storage. Raises DurabilityUnknown."""
        ...

    def settle_what_is_read(self, view: View | None) -> None:
        """`settle` for a reader: what fails is logged, and refuses writes from now on."""
        ...

    def stricter(self) -> None:
        """Durability "power" from now on: `settles` is true, where anything is committed at all."""
        ...

    # Reading

    def freshness(self) -> Fresh:
        """The question that every read asks first, without the mutex: memory's view, if memory is as new as this engine
        promises, else None. It may say None where nothing is new: then `refresh` looks. The store binds it once, and
        again after `stricter`.
        """
        ...

    def open(self) -> None:
        """Bring memory to the newest commit; begin an empty state where there is none. Waits for no writer.

        Raises StateFileError, MissingPathError, NotAFileError, ReadOnlyError or UnreadableError.
        """
        ...

    @property
    def at_rest(self) -> bool:
        """Not opened yet, or let go of by `rest`."""
        ...

    def refresh(self) -> None:
        """Bring memory to the newest commit, also where its view is None, and after `rest`.

        Never waits for another writer. Memory keeps its view where nothing is new. Raises EditConflict,
        UnreadableError.
        """
        ...

    def renewed(self, view: View) -> View:
        """A view that is equal to *view*, and another object: for memory that is again what it was."""
        ...

    # The rest of its life

    def vacuum(self) -> None:
        """Make one document of all records, after `begin_rewrite`. Memory and its containers stay as they are.

        Raises WriteError: then all is as it was.
        """
        ...

    def save(self, original: State, text: bytes) -> list[str]:
        """Bring the document *text*, made by a person of a copy that said *original*, together with the state, after
        `begin_rewrite`. Memory is the result afterwards, and a trail tells of it as an "edit".

        Returns a sentence for each value of a program that gave way. Raises InvalidStateError where *text* is not a
        state, and as `vacuum`.
        """
        ...

    def tidy(self, *, keep_journal: bool = False) -> None:
        """Leave the state as the next one likes to find it, or, with *keep_journal*, only what is needed. What does not
        work is logged.
        """
        ...

    def rest(self) -> None:
        """Let go of what is open: memory's view is None. The next `refresh` or `begin` opens it again."""
        ...

    def forget(self) -> None:
        """In a forked child: let go of what is the parent's, so that the parent does not notice."""
        ...

    def check(self) -> None:
        """Assert what holds whenever the store is not in the middle of something. For tests.

        Raises AssertionError, with the number that the rule has in docs/guarantees.md.
        """
        ...

    # Its name

    def follow_links(self) -> None:
        """Somebody opens the address again: if it means something else by now, the next read or change looks."""
        ...

    def leads_to(self, name: Any) -> bool:
        """Whether the state is the one that `Engine.name` calls *name*, just now."""
        ...

    def stay_at(self, name: Any) -> None:
        """Follow *name* from now on, and the address no more."""
        ...

    # What has become of the state

    @property
    def generation(self) -> str | None:
        """Which journal the commits are in; None before the first one since the last vacuum."""
        ...

    @property
    def promises_power(self) -> bool:
        """Everything that is read from the journal is on stable storage."""
        ...

    @property
    def journal(self) -> object:
        """What the newest commits are in: another object after they were put elsewhere. To be compared by `is`."""
        ...

    def records(self) -> tuple[State, Iterable[Operations]]:
        """What the last document says, and the commits since then, each decoded when it is its turn."""
        ...

    def trail(self, history: bool) -> Trail:
        """Notes of what becomes of the state after memory's view; with *history*, after the last document.

        They are complete only from `follow` to `unfollow`.
        """
        ...

    def follow(self, trail: Any) -> object:
        """Keep *trail* up to date, in this process; returns the `journal`. May be called again, after a fork."""
        ...

    def unfollow(self, trail: Any = None) -> None:
        """End *trail*, and those that nobody has any more. Harmless for one that is not followed."""
        ...


class Engine(Protocol):
    """Opens the logs of one kind of address. It is hashable: with another one, the same address is another state."""

    @property
    def key(self) -> Hashable:
        """Equal for engines that keep the same states. It keeps nothing alive: the store has a table by it."""
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
    ) -> Log:
        """The log of *address*, not open yet. *locking*: who excludes whom, where one may choose."""
        ...

    def name(self, address: str) -> Hashable:
        """What *address* means just now: equal for all addresses of one state."""
        ...

    def close_inherited(self) -> None:
        """In a forked child, after `Log.forget`: close what another thread of the parent was in the middle of."""
        ...
