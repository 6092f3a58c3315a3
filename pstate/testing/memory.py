"""States in the memory of this process, for tests: a second engine in addition to the file.

>>> from pstate.store import Store
>>> engine = MemoryEngine()
>>> one, other = Store("jobs", engine=engine), Store("jobs", engine=engine)

Stores that are opened with the same engine object and the same address have the same state, like processes that open
the same file. Nothing is kept when the process ends, and a forked child goes on with a copy of its own.

The engine works differently from the file. The commits of a state are a chain of links. A commit is one call of
`dict.setdefault`, which compares and sets: a commit whose place is taken was overtaken. So a single change takes no
lock. A block appends a link with its turn, and no other log may append to that link before the turn ends.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple

from pstate.engine import Body, Engine, Leg, Log, Memory, Operations, Overtaken, State, Unlock
from pstate.errors import LockTimeout, MissingPathError, ReadOnlyError
from pstate.signals import expected
from pstate.text import dumping, merge, reading
from pstate.values import same

#: How often a writer checks whether a block of another log has ended, in seconds.
PAUSE = 0.001


class Journal:
    """A document, and the commits since then."""

    __slots__ = ("document", "first", "generation", "power")

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.generation = secrets.token_hex(8)
        self.power = False  #: whether all of its commits were made with durability "power"
        self.first: Link  #: its beginning


class Link:
    """One step in the order of all commits: a record, another journal, or the beginning of a block."""

    __slots__ = ("_next", "body", "index", "is_edit", "journal", "log", "turn")

    def __init__(
        self,
        journal: Journal,
        index: int,
        log: MemoryLog | None = None,
        body: Body | None = None,
        turn: Sequence[MemoryLog] = (),
        is_edit: bool = False,
    ) -> None:
        self.journal = journal
        self.index = index  #: how many records the journal has up to here
        self.log = log  #: the log that has added it
        self.body = body  #: None if no record was added
        #: The only log that may go on from here; empty if all logs may. Once empty, it stays empty.
        self.turn = turn
        self.is_edit = is_edit  #: whether its journal may have another state than the one before
        self._next: dict[None, Link] = {}

    @property
    def next(self) -> Link | None:
        """The step after this one, or None."""
        return self._next.get(None)

    def append(self, link: Link) -> bool:
        """Let *link* follow this one. False if another one does already."""
        # One C call: no other thread and no signal handler comes in between.
        return self._next.setdefault(None, link) is link

    def up_to(self, last: Link) -> Iterator[Link]:
        """The links after this one, up to *last*."""
        link = self
        while link is not last and link.next is not None:
            link = link.next
            yield link


class View(NamedTuple):
    """The position after *link*."""

    link: Link


class Turn:
    """A block's turn: see `engine.Held`."""

    __slots__ = ("logs", "unlock")

    def __init__(self) -> None:
        self.logs: list[MemoryLog] = []
        #: A C function that may be called twice: no other turn is this list object.
        self.unlock: Unlock = self.logs.clear

    def take(self, log: MemoryLog) -> list[MemoryLog]:
        """A new turn, which belongs to *log* as soon as a link has it."""
        logs = [log]
        self.unlock = logs.clear
        self.logs = logs
        return logs

    def release(self) -> None:
        """See `engine.Held`."""
        self.unlock()

    def unlock_again(self, error: OSError) -> bool:
        """Nothing is returned to the system, so nothing fails."""
        return True

    def drop_lost(self) -> None:
        """The system takes nothing away."""


class Trail:
    """The notes for one watch of *log*, which begins after *link*. It reads the chain, so it misses nothing."""

    def __init__(self, log: MemoryLog, link: Link, unknown: int) -> None:
        self._log = log
        self._link = link
        self._unknown = unknown
        self._legs: list[Leg] = []
        self.conflict: Exception | None = None
        self.bell = None

    def collect(self) -> int:
        """See `engine.Trail`."""
        last = self._log.link
        if last is not None and last is not self._link:
            # Noted first, then set without a call, so that no exception of a signal handler comes in between.
            legs, unknown = self._noted(last)
            self._legs, self._link, self._unknown = legs, last, unknown
        return len(self._legs)

    def _noted(self, last: Link) -> tuple[list[Leg], int]:
        legs, unknown = self._legs[:], self._unknown
        before, links = self._link.index, list[Link]()

        def note() -> None:
            if links:
                others = frozenset(link.index for link in links if link.log is not self._log)
                legs.append(Leg(None, None, self._log.decoded(links), before, others, unknown))

        for link in self._link.up_to(last):
            if link.body is not None:
                links.append(link)
            elif link.journal.first is link:
                note()
                before, links, unknown = 0, [], 0
                if link.is_edit:
                    legs.append(Leg(self._log.document(link.journal), "edit", [], 0, frozenset(), 0))
        note()
        return legs, unknown

    def take(self, number: int | None = None) -> list[Leg]:
        """See `engine.Trail`."""
        if number is None:
            number = self.collect()
        legs, self._legs = self._legs[:number], self._legs[number:]
        return legs


class MemoryLog:
    """The state at one address of a `MemoryEngine`: see `engine.Log`."""

    __slots__ = ("_orders", "address", "hold", "link", "lock_timeout", "memory", "read_only", "settles")

    has_followers = True

    def __init__(
        self,
        address: str,
        memory: Memory,
        orders: dict[str, Link],
        *,
        settles: bool = False,
        lock_timeout: float | None = 10.0,
        read_only: bool = False,
    ) -> None:
        self.address = address
        self.memory = memory
        #: For each address, a recent link, from which the last one can be reached.
        self._orders = orders
        self.settles = settles and not read_only
        self.lock_timeout = lock_timeout
        self.read_only = read_only
        self.hold = Turn()
        #: The link that memory was at last; None at rest.
        self.link: Link | None = None

    # A commit

    def begin(self, timeout: float | None) -> None:
        """See `engine.Log`. It takes no lock, and waits for the blocks of others."""
        if self.read_only:
            message = f"{self.address}: the state was opened read_only. Nothing was changed."
            raise ReadOnlyError(message, path=self.address)
        began = monotonic()
        while True:
            self.refresh()
            if self._is_free(self._view.link):
                return
            waited = monotonic() - began
            if timeout is not None and 0 <= timeout <= waited:
                raise LockTimeout(
                    f"{self.address}: waited {waited:.1f} s for a transaction of another store of this process. "
                    "Nothing was changed. Try again, or set a longer timeout.",
                    path=self.address,
                    waited=waited,
                    holder=os.getpid(),
                )
            sleep(PAUSE)

    def confirm(self) -> None:
        """See `engine.Log`: `begin` has looked."""

    def begin_block(self, timeout: float | None) -> None:
        """See `engine.Log`."""
        began = monotonic()
        while True:
            self.begin(timeout if timeout is None or timeout < 0 else max(0.0, timeout - (monotonic() - began)))
            link = self._view.link
            # First in `hold`, then in the chain: an exception in between leaves no turn that is never released.
            turn = self.hold.take(self)
            block = Link(link.journal, link.index, self, turn=turn)
            if link.append(block):
                self._is_at(block)
                return

    #: No trouble here refuses commits but not rewrites.
    begin_rewrite = begin_block

    def _is_free(self, link: Link) -> bool:
        """Whether this log may append to *link*. Once it may, that does not change."""
        return not link.turn or link.turn is self.hold.logs

    def prepare(self) -> View:
        """See `engine.Log`."""
        return self._view

    def commit(self, body: Body, after: View | None = None) -> View:
        """See `engine.Log`."""
        link = (after or self._view).link
        record = Link(link.journal, link.index + 1, self, body, link.turn)
        if not self._is_free(link) or not link.append(record):
            raise Overtaken
        link.journal.power = self.settles and (link.journal.power or not link.index)
        self._orders[self.address] = record
        return View(record)

    def publish(self, view: View) -> None:
        """See `engine.Log`. No vacuum is ever due."""
        self.link = view.link
        self.memory.view = view

    def settle(self, view: View) -> None:
        """Does nothing, because this engine has no stable storage."""

    def settle_what_is_read(self, view: View | None) -> None:
        """See `settle`."""

    def check(self) -> None:
        """See `engine.Log`."""
        if self.memory.view is not None:
            assert self._view.link is self.link, "I4: memory is at another link than the log"

    def stricter(self) -> None:
        """See `engine.Log`."""
        self.settles = not self.read_only

    def fresher(self, seconds: float) -> None:
        """See `engine.Log`: memory is always new."""

    # Reading

    def freshness(self) -> Callable[[], View | None]:
        """See `engine.Log`."""
        return self._fresh

    def _fresh(self) -> View | None:
        view: View | None = self.memory.view
        return view if view is not None and view.link.next is None else None

    @property
    def _view(self) -> View:
        view: View | None = self.memory.view
        assert view is not None
        return view

    def _is_at(self, link: Link) -> None:
        self.link = self._orders[self.address] = link
        self.memory.view = View(link)

    def open(self) -> None:
        """See `engine.Log`."""
        if self.address not in self._orders:
            if self.read_only:
                message = f"{self.address}: the state does not exist, and read_only does not begin one."
                raise MissingPathError(message, path=self.address)
            journal = Journal(dumping.dump({}))
            journal.first = Link(journal, 0)
            self._orders.setdefault(self.address, journal.first)
        self._load()

    @property
    def at_rest(self) -> bool:
        """See `engine.Log`."""
        return self.link is None

    def refresh(self) -> None:
        """See `engine.Log`."""
        view: View | None = self.memory.view
        if view is None:
            if self.link is None:
                self.open()
            else:
                self._load()
            return
        link = view.link
        while (following := link.next) is not None:
            if following.body is not None:
                self.memory.view = None
                self.memory.apply(reading.decode_body(following.body, self.address, following.index))
            elif following.is_edit:
                self.memory.view = None
                self.memory.adopt(self.document(following.journal))
            link = following
        if link is not view.link:
            self._is_at(link)

    def _load(self) -> None:
        """Make memory the state of the newest journal."""
        last = self._orders[self.address]
        while last.next is not None:
            last = last.next
        state = self.memory.replay(self.document(last.journal), self._records(last))
        self.memory.view = None
        self.memory.adopt(state)
        self._is_at(last)

    def renewed(self, view: View) -> View:
        """See `engine.Log`."""
        return View(view.link)

    # The rest of its life

    def vacuum(self) -> None:
        """See `engine.Log`."""
        self._go_on_in(dumping.dump(self.memory.plain()))

    def _go_on_in(self, document: bytes, is_edit: bool = False) -> None:
        """Let a new journal with *document* follow memory's view, in a block."""
        link = self._view.link
        journal = Journal(document)
        journal.first = Link(journal, 0, self, turn=link.turn, is_edit=is_edit)
        appended = link.append(journal.first)
        assert appended, "another log has committed in our block"
        if not is_edit:
            self._is_at(journal.first)

    def save(self, original: State, text: bytes) -> list[str]:
        """See `engine.Log`. The comments of *text* are kept only if nothing was committed meanwhile."""
        edited = reading.load(text, self.address).value
        merged, lost = merge.merge(original, edited, self.memory.plain())
        self._go_on_in(text if same(merged, edited) else dumping.dump(merged), is_edit=True)
        self.refresh()
        return lost

    def tidy(self, *, keep_journal: bool = False) -> None:
        """See `engine.Log`."""
        if self.link is None or self.read_only or keep_journal:
            return
        try:
            self.begin_block(0)
            if self._view.link.index:
                self.vacuum()
        except expected(LockTimeout):
            pass  # another log is in a block, so the state is open there, and is tidied later
        finally:
            try:
                self.hold.release()
            except BaseException:
                self.hold.release()
                raise

    def rest(self) -> None:
        """See `engine.Log`."""
        self.memory.view = None
        self.link = None

    def forget(self) -> None:
        """See `engine.Log`. The child has a copy of the chain, so the parent does not see its changes."""
        self.hold.unlock()
        self.rest()

    # Its name

    def follow_links(self) -> None:
        """Does nothing: an address is only a name."""

    def leads_to(self, name: Hashable) -> bool:
        """See `engine.Log`."""
        return name == self.address

    def stay_at(self, name: str) -> None:
        """See `engine.Log`."""
        self.address = name

    # The history of the state

    @property
    def generation(self) -> str | None:
        """See `engine.Log`."""
        return self.link.journal.generation if self.link is not None and self.link.index else None

    @property
    def promises_power(self) -> bool:
        """See `engine.Log`, as far as this engine can promise it."""
        return self.link is not None and self.link.journal.power

    @property
    def journal(self) -> Journal:
        """See `engine.Log`."""
        assert self.link is not None
        return self.link.journal

    def document(self, journal: Journal) -> State:
        """The state that *journal* begins with."""
        return reading.load(journal.document, self.address).value

    def decoded(self, links: Iterable[Link]) -> Iterator[Operations]:
        """The records that *links* have added, each decoded when it is reached."""
        return (reading.decode_body(link.body, self.address, link.index) for link in links if link.body is not None)

    def _records(self, last: Link) -> Iterator[Operations]:
        return self.decoded(last.journal.first.up_to(last))

    def records(self) -> tuple[State, Iterable[Operations]]:
        """See `engine.Log`."""
        link = self._view.link
        return self.document(link.journal), self._records(link)

    def history(self) -> tuple[State, int, Iterable[Operations]]:
        """See `engine.Log`."""
        document, records = self.records()
        return document, 0, records

    def trail(self, history: bool) -> Trail:
        """See `engine.Log`."""
        link = self._view.link
        return Trail(self, link.journal.first, link.index) if history else Trail(self, link, 0)

    def follow(self, trail: Trail) -> Journal:
        """See `engine.Log`. No process waits for a trail: the chain keeps the records that it has not read."""
        return self.journal

    def unfollow(self, trail: Trail | None = None) -> None:
        """See `follow`."""


class MemoryEngine:
    """States in memory, by address: see `engine.Engine`. Each object has states of its own."""

    def __init__(self) -> None:
        self._orders: dict[str, Link] = {}

    def log(
        self,
        address: str,
        memory: Memory,
        *,
        settles: bool = False,
        lock_timeout: float | None = 10.0,
        locking: object = "file",
        read_only: bool = False,
        fresh: float = 0.0,
    ) -> Log:
        """See `engine.Engine`. It has only one kind of locking, and memory is always new."""
        return MemoryLog(address, memory, self._orders, settles=settles, lock_timeout=lock_timeout, read_only=read_only)

    @property
    def key(self) -> int:
        """See `engine.Engine`."""
        return id(self)

    def name(self, address: str) -> str:
        """An address is its own name."""
        return address

    def close_inherited(self) -> None:
        """See `engine.Engine`: end the blocks of the parent's threads."""
        for link in self._orders.values():
            last: Link | None = link
            while last is not None:
                if isinstance(last.turn, list):
                    last.turn.clear()
                last = last.next


if TYPE_CHECKING:
    _: type[Engine] = MemoryEngine
