"""Simulated processes on a simulated disk, and somebody who decides at every system call who goes on.

Each process is a greenlet that runs real code of the store. Before each of its system calls it stops, and the world is
asked what may happen next (`actions`); `take` lets one of it happen. So a run is the list of actions taken, and the
same list gives the same run.

A process knows of the disk only what its calls returned. Its state is therefore the sequence of those results, and the
state of the world is the disk and, for each process, that sequence (`key`): two schedules that lead to the same key
need not both be followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from greenlet import greenlet

from pstate import Change, PersistedState, Watch, engines, store
from pstate.errors import DurabilityUnknown, EditConflict, StateFileError
from pstate.file import format as f
from pstate.file.flock import UNLOCK
from pstate.file.journal import Journal
from pstate.file.log import FileLog
from pstate.file.vacuum import is_temporary
from pstate.memory import ops
from pstate.state import Transaction
from pstate.testing.disk import Description, Image, Inode, SimulatedDisk
from pstate.testing.system import Killed, SimulatedSystem, fail
from pstate.watch import WATCH_INTERVAL
from stress.check import BrokenPromise
from stress.simulated.clone import forked

PATH = "/state.yaml"
DAEMON_LOG = "/daemon.log"
PERSON = "person"  #: the process that is a person's editor
STRANGER, STRANGE = 7, b"stranger: 1\n"  #: a user who may write in the folder, and what is in a file of hers

CALLS = (
    "open", "close", "lseek", "pread", "write", "truncate", "sync", "sync_data", "stat", "fstat", "copy_attributes",
    "flock", "rename", "rename_new", "unlink", "exchange", "sync_folder", "sleep", "watch", "unwatch", "is_watched",
)  # fmt: skip

#: Which call may fail how. Reading a file that is open, and looking at its size, do not fail.
FAILURES: dict[str, tuple[int, ...]] = {
    "open": (errno.EIO,),
    "write": (errno.ENOSPC, errno.EIO),
    "truncate": (errno.EIO,),
    "sync": (errno.EIO,),
    "sync_data": (errno.EIO,),
    "rename": (errno.EIO,),
    "rename_new": (errno.ENOSYS, errno.EIO),
    "exchange": (errno.ENOSYS, errno.EIO),
    "unlink": (errno.EIO,),
    "sync_folder": (errno.EIO,),
    "copy_attributes": (errno.EPERM,),
    "flock": (errno.ENOLCK,),
}

#: What changes nothing that others could see.
READING = ("lseek", "pread", "stat", "fstat", "copy_attributes")
#: What is about the marks of those who watch. Nobody does that without others who may notice.
MARKS = ("watch", "unwatch", "is_watched")

#: A run of a scenario that makes more calls than this gets nowhere.
MOST_CALLS = 20_000

#: "run" a process up to its next call, "kill" it instead, or let its call "fail" with an errno.
Action = tuple[str, str, int]


class GaveUp(Exception):
    """A process that cannot go on, and may not, as the documents say."""


@dataclass
class Scenario:
    """Which processes there are, and what each of them does."""

    name: str
    bodies: dict[str, Callable[[Actor], None]]
    files: Image = field(default_factory=lambda: {PATH: b"log: []\n"})
    #: What a stranger has put under names beside the state: its mode, with its kind.
    strangers: dict[str, int] = field(default_factory=dict)
    plain: bool = False  #: whether the system can only do the plain rename
    opened: tuple[str, ...] = ()  #: processes that have opened the file before the schedule begins
    watching: tuple[str, ...] = ()  #: those of them that watch it by then
    read_only: tuple[str, ...] = ()  #: those of them that have opened it read-only
    slow: bool = False  #: a process may stand still for so long, at any call, that each file it then sees is an old one
    options: dict[str, Any] = field(default_factory=dict)  #: of `PersistedState.open`
    kills: int = 1  #: how many processes may be killed in a run
    failures: int = 0  #: how many calls may fail in a run
    power: bool = False  #: whether the power may go in every state
    #: How often, at most, a process that could go on has to wait for another one; None: as often as there is a chance.
    switches: int | None = None
    tick: float = 1e-6  #: see `SimulatedSystem.tick`
    edited: bool = False  #: a person's program is among the processes, so that files may be kept beside
    fair: Callable[[World], None] = lambda world: None  #: what else must hold at the end


def _log(state: PersistedState) -> Iterable[str]:
    try:
        found: Iterable[str] = state["log"].copy()
    except KeyError:
        return ()  # of an empty state
    return found


def _append(token: str, state: PersistedState) -> None:
    try:
        state.log.append(token)
    except AttributeError:
        state.log = [token]  # the first one of an empty state


class Actor:
    """A simulated process as its body sees it: with what it did, for those who judge."""

    def __init__(self, world: World, name: str, system: SimulatedSystem) -> None:
        self.world = world
        self.name = name
        self.system = system
        self.state: PersistedState | None = None
        self.pending: tuple[str, tuple[Any, ...]] | None = None
        self.history = 0
        self.checked: object = None  #: the view for which its invariants were last checked
        self.ended = False
        self.opening = False
        self.on_a_full_disk = False
        self.seen = -1  #: `disk.changes` when it went to sleep
        self.wants: Inode | None = None  #: whose lock it was just refused
        self.awaits = False  #: it asked whether others have come to the new file
        self.must: frozenset[str] = frozenset()  #: what the view that it is about to take has to show
        self.acknowledged: list[str] = []
        self.unsynced: list[str] = []  #: of those, the ones that were said to be committed, but perhaps not durable
        self.attempted: list[str] = []
        self.refused: list[str] = []
        self.views: list[tuple[str, ...]] = []
        self.watch: Watch | None = None
        self.watched_from: dict[Any, Any] = {}  #: the state when the watch began,
        self.told: list[list[Change]] = []  #: and what it has told since, with what came together in one list
        self.groups: list[set[str]] = []  #: tokens of one transaction: all or none of them are visible
        self.conflicts: list[Exception] = []
        self.follows = False  #: nothing is left to do, but for the thread of a watch
        self.saves = 0  #: of a person's editor: how many it has begun,
        self.saved = 0  #: and which of them was the last to end
        self.error: BaseException | None = None
        self.log: Description | None = None  #: what it has opened as a daemon,
        self.log_holder: Description | None = None  #: and who had locked that
        self.body: Callable[[Actor], None] = lambda actor: None
        self.run = greenlet(self._run, parent=world.hub)

    @property
    def alive(self) -> bool:
        return not self.ended and not self.system.dead

    @property
    def may_write(self) -> bool:
        return self.name not in self.world.scenario.read_only

    def _run(self, number: int) -> None:
        try:
            if self.alive:
                self.body(self)
        except (Killed, GaveUp):
            pass
        except Exception as error:
            self.error = error
        self.ended = True
        self.pending = None

    # what bodies call

    def open(self, **options: Any) -> PersistedState:
        """Open the state file. Everybody who was acknowledged before must be in it."""
        while True:
            self.opening = True
            try:
                self.state = PersistedState.open(PATH, fs=self.system, **{**self.world.scenario.options, **options})
                return self.state
            except StateFileError as error:
                # A save is under way, or lies above the journal of others, who may still bring both together.
                if not self.world.scenario.edited and not self.world.scenario.failures:
                    raise
                if len(self.conflicts) >= 5:
                    raise GaveUp from error  # those who know both sides live, and do not look
                self.conflicts.append(error)
                self.pause(0.1)
            except OSError as error:
                if not self.world.scenario.failures:
                    raise
                raise GaveUp from error
            finally:
                self.opening = False

    def commit(self, token: str, change: Callable[[PersistedState], None] | None = None) -> None:
        """Append *token* to `log`, or have *change* do it; afterwards it counts as acknowledged."""
        assert self.state is not None
        self.change((token,), change or partial(_append, token))

    def transaction(self, *tokens: str) -> None:
        """Append *tokens* in one transaction."""

        def change(state: PersistedState) -> None:
            with state.transaction():
                for token in tokens:
                    state.log.append(token)

        self.groups.append(set(tokens))
        self.change(tokens, change)

    def change(self, tokens: tuple[str, ...], change: Callable[[PersistedState], None]) -> None:
        """Have *change* commit *tokens*; note how that ended."""
        assert self.state is not None
        scenario = self.world.scenario
        self.attempted += tokens
        try:
            change(self.state)
        except StateFileError as error:
            if not scenario.edited and not scenario.failures:
                raise
            self.conflicts.append(error)
            if not isinstance(error, EditConflict):
                self.refused += tokens
            return  # a conflict is about a person's save: it may have been found before our change, or after it
        except DurabilityUnknown:
            if not scenario.failures and not scenario.edited:
                raise
            self.unsynced += tokens
        except OSError:
            if not scenario.failures:
                raise
            self.refused += tokens
            return
        self.acknowledged += tokens
        self._check_look()

    def _check_look(self) -> None:
        """Assert that the commit that has just been acknowledged has had a look at the path that was young enough."""
        scenario, log = self.world.scenario, self.state._store.log if self.state is not None else None
        if scenario.edited or scenario.failures or not isinstance(log, FileLog):
            return
        journal, look = log.standing.journal, log.look
        if journal is not None and journal.is_easy() and self.system.now > look.look_due + 100 * scenario.tick:
            late = self.system.now - look.look_due
            raise BrokenPromise(f"I6: {self.name} was acknowledged {late:.6f} s after the look at the path was due")

    def look(self, take: Callable[[PersistedState], Any] = _log) -> tuple[str, ...]:
        """Take a view of `log`; it must show whatever was acknowledged before."""
        assert self.state is not None
        # A save may lack what others have committed, until they look again.
        edited = self.world.scenario.edited
        self.must = frozenset(self.acknowledged) if edited else self.world.acknowledged()
        try:
            view = tuple(take(self.state))
        except EditConflict as error:
            if not edited:
                raise
            self.conflicts.append(error)
            view = tuple(take(self.state))
        self.views.append(view)
        lacking = self.must - set(view)
        if lacking and not (edited and lacking <= self.world.kept_beside(lacking)):
            raise BrokenPromise(f"{self.name} looked and saw {view}, without {sorted(lacking)}, acknowledged before")
        self.must = frozenset()
        return view

    def begin_watch(self) -> None:
        assert self.state is not None
        self.watch = self.state.watch()
        self.watched_from = ops.plain(self.watch._root)

    def hear(self) -> None:
        """Note what the watch tells."""
        assert self.watch is not None
        try:
            self.told += self.watch.commits()
        except EditConflict as error:
            if not self.world.scenario.edited:
                raise
            self.conflicts.append(error)

    def follow(self) -> None:
        """Do what the thread of a watch does: look every now and then, as long as there is somebody to wait for."""
        self.follows = True
        while self.world.others_go_on(self):
            self.hear()
            if not self.world.scenario.edited:
                # However it came here, it has read everything before its view, and told that: a reduction.
                assert self.state is not None
                _, end, crc, _, journal = self.state._store.view or (0, 0, 0, 0, None)
                self.history = hash((journal and journal.identity, end, crc, len(self.told)))
            self.pause(WATCH_INTERVAL)
        self.hear()

    def look_again(self) -> None:
        """Look, when it does not matter what is seen, or whether a conflict is raised."""
        assert self.state is not None
        try:
            self.state.get("log")
        except StateFileError as error:
            self.conflicts.append(error)

    def close(self) -> None:
        assert self.state is not None
        state, self.state = self.state, None
        state.close()

    def vacuum(self) -> None:
        assert self.state is not None
        known = len(dict.get(self.state, "log", ()))
        self.state.vacuum()
        self.world.floor = max(self.world.floor, known)

    def fork(self, name: str, transaction: Transaction, body: Callable[[Actor, Transaction], None]) -> None:
        """Fork, within *transaction*: the child, called *name*, goes on with *body*, and what it has of the block."""
        assert self.state is not None
        child = self.world.actor(name, self.system.child(name))
        child.state, left = forked(self.state, transaction, child.system)
        child.history = hash((self.history, name))
        child.pending = "fork", ()
        child.body = lambda child: body(child, left)
        self.world.actors[name] = child

    def become_a_daemon(self, content: bytes, locked: bool) -> None:
        """Close all descriptors, and open a log with *content*, which gets the number of the state's file."""
        assert self.state is not None
        journal = self.state._store.log.journal
        assert isinstance(journal, Journal)
        system = self.system
        number = journal.fd
        system.close_all(number)
        log = system.descriptors[system._open(DAEMON_LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND)]
        system.put(log, content)
        log.inode.holder = log if locked else None
        self.log = log
        self.log_holder = log.inode.holder
        assert system.descriptors[number] is log

    def pause(self, seconds: float) -> None:
        self.system.sleep(seconds)


def _no_such_rename(first: str, second: str) -> None:
    fail(errno.ENOSYS)


class World:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.disk = SimulatedDisk(scenario.files)
        # The owner of a pipe or a link does not matter.
        self.strangers = {
            path: self.disk.create(STRANGE, mode, STRANGER if stat.S_ISREG(mode) else 0)
            for path, mode in scenario.strangers.items()
        }
        self.disk.name(*self.strangers.items())
        self.disk.sync_folder()
        self.calls = 0
        self.hub = greenlet.getcurrent()
        self.current: Actor | None = None  #: whose calls are scheduled
        self._steps: list[tuple[Actor, str, int, tuple[str, tuple[Any, ...]]]] = []
        self.kills = scenario.kills
        self.failures = scenario.failures
        self.floor = 0  #: how many tokens the last vacuum has made durable
        self._watchers_look = False
        self.busy_editors: set[str] = set()  #: those in the middle of a save in place, who are faster than any pause
        self.actors = {name: self.actor(name) for name in scenario.bodies}
        for name in scenario.opened:
            self.actors[name].open(**({"read_only": True} if name in scenario.read_only else {}))
        for name in scenario.watching:
            self.actors[name].begin_watch()
        for name, body in scenario.bodies.items():
            self.actors[name].body = body
            self._go(self.actors[name], 0)

    def actor(self, name: str, system: SimulatedSystem | None = None) -> Actor:
        """A process, whose system calls are scheduled while its body runs."""
        system = system or SimulatedSystem(self.disk, name=name, tick=self.scenario.tick)
        if self.scenario.plain:
            system.exchange = system.rename_new = _no_such_rename  # type: ignore[assignment,method-assign]
        if self.scenario.slow:
            system.wall = lambda: 1e6
        actor = Actor(self, name, system)
        for call in CALLS:
            setattr(system, call, partial(self._call, actor, call, getattr(system, call)))
        return actor

    # ------------------------------------------------------------------ system calls

    def _call(self, actor: Actor, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        if name in ("write", "truncate"):
            self._check_change(actor, name, *arguments)
        if actor is not self.current and name == "sleep":
            self._let_watchers_look(actor)
        if actor is not self.current or (self._alone(actor) and self._changes_nothing(actor, name, arguments)):
            return self._do(actor, name, real, arguments)
        if name == "write" and len(arguments[1]) > 1 and arguments[0] in actor.system.descriptors:
            return self._write(actor, *arguments)
        number = self._stop(actor, name, arguments)
        if name != "sleep":
            actor.wants = None
            actor.awaits = name == "is_watched"
        return self._do(actor, name, real, arguments, number)

    def _check_change(self, actor: Actor, name: str, fd: int, what: bytes | int) -> None:
        """Assert what holds before one of our programs appends to a state file, or cuts it."""
        description = actor.system.descriptors.get(fd)
        # Editors do not append, no matter which process runs them.
        if description is None or not description.appending or not self._is_state(description.inode):
            return
        inode = description.inode
        if inode.holder is not description:
            raise BrokenPromise(f"I2: {actor.name} is about to {name} without the lock of the file")
        image = f.scan(bytes(inode.content))
        if name == "truncate" and isinstance(what, int) and what < image.end and not self.scenario.edited:
            raise BrokenPromise(f"I1: {actor.name} is about to cut the file at {what}, records end at {image.end}")
        view = actor.state._store.view if actor.state is not None else None
        # After a write that took only a part, the rest follows that; and a person's save needs no lock.
        if name != "write" or view is None or actor.on_a_full_disk or self.scenario.edited:
            return
        number, end, _, _, _ = view
        if number == fd and end != len(inode.content):
            raise BrokenPromise(f"I3: {actor.name} is about to append at {len(inode.content)}, and is at {end}")

    def _is_state(self, inode: Inode) -> bool:
        return inode is self.disk.names.get(PATH)

    def check(self) -> None:
        """Assert what holds at every stop, in each process that is not in the middle of something."""
        for actor in self.actors.values():
            if actor.alive and actor.state is not None and actor.checked is not actor.state._store.view:
                actor.checked = actor.state._store.view  # the same view is the same memory
                try:
                    actor.state._store.check()
                except AssertionError as error:
                    raise BrokenPromise(f"{actor.name}: {error}") from error

    def _let_watchers_look(self, waiting: Actor) -> None:
        """Where nobody is scheduled, those who watch look while somebody waits, who may wait for them."""
        if not self._watchers_look:
            self._watchers_look = True
            try:
                for actor in self.actors.values():
                    if actor is not waiting and actor.watch is not None and not actor.system.dead:
                        actor.hear()
            finally:
                self._watchers_look = False

    def others_go_on(self, actor: Actor) -> bool:
        """Whether anybody else will do something by himself."""
        return any(other.alive and not other.follows for other in self.actors.values() if other is not actor)

    def _do(
        self, actor: Actor, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], number: int = 0
    ) -> Any:
        """Make the call, or let it fail with errno *number*; note what the process learns from it."""
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise BrokenPromise(f"{actor.name} gets nowhere: {name}{arguments}")
        try:
            if number:
                raise OSError(number, os.strerror(number))
            result = real(*arguments)
        except OSError as error:
            actor.history = hash((actor.history, name, error.errno))
            if name == "flock" and error.errno == errno.EWOULDBLOCK:
                actor.wants = actor.system.descriptors[arguments[0]].inode
            raise
        seen = (result.st_ino, result.st_size, result.st_mtime_ns) if name.endswith("stat") else result
        actor.history = hash((actor.history, name, seen))
        return result

    # Three reductions, which lose no state. The holder of the lock of the file at the path is the only one that changes
    # anything (I2), unless a person's program is about: so whatever it reads, it would read at any other moment before
    # its next change too. What it does under names that only holders look at, nobody else sees. And nobody sees
    # changes of a file that only one process has open, before it gets a name that others look at. If a fault lets
    # somebody change things without the lock, then that process does not hold it, and gets no such treatment.

    def _alone(self, actor: Actor) -> bool:
        inode = self.disk.names.get(PATH)
        if inode is None or inode.holder is None or inode.holder not in actor.system.descriptors.values():
            return False
        # A person's save leaves a second file, whose lock somebody may hold who has not seen that yet.
        return not self.scenario.edited or (not self._is_person_here() and self._holders() == {actor.name})

    def _is_person_here(self) -> bool:
        return PERSON in self.actors and self.actors[PERSON].alive

    def _holders(self) -> set[str]:
        return {
            name
            for name, actor in self.actors.items()
            if any(each.inode.holder is each for each in actor.system.descriptors.values())
        }

    def _changes_nothing(self, actor: Actor, name: str, arguments: tuple[Any, ...]) -> bool:
        """Whether what *actor*, who is alone, calls now might as well come at any other moment."""
        if not self.scenario.power and name in ("sync", "sync_data", "sync_folder"):
            return True
        if self.scenario.edited:
            return name in READING and (arguments[0] == PATH or self._is_at_path(actor, arguments[0]))
        return name in READING

    def _is_private(self, actor: Actor) -> bool:
        """Whether nobody else notices the call that *actor* is about to make."""
        assert actor.pending is not None
        name, arguments = actor.pending
        if name in ("unlink", "open", "rename", "rename_new"):
            if actor.name == PERSON:
                return name == "open" and arguments[0] != PATH
            return (
                not self.scenario.edited
                and self._alone(actor)
                and all(path != PATH for path in arguments if isinstance(path, str))
            )
        if name == "sync_folder":
            return self._alone(actor)
        if name == "fork" or name in MARKS:
            return False
        file = arguments[1] if name == "copy_attributes" else arguments[0]
        if file not in actor.system.descriptors:
            return False
        if actor.name == PERSON and name == "close":
            return True
        if self._alone(actor) and not self.scenario.edited:
            return not self._is_at_path(actor, file)
        return self._is_own(actor, file)

    def _is_at_path(self, actor: Actor, fd: Any) -> bool:
        description = actor.system.descriptors.get(fd)
        return description is not None and description.inode is self.disk.names.get(PATH)

    def _is_own(self, actor: Actor, fd: int) -> bool:
        inode = actor.system.descriptors[fd].inode
        names = [name for name, each in self.disk.names.items() if each is inode]
        if any(name == PATH or is_temporary(name, PATH, "swap") for name in names):
            return False
        mine = actor.system.descriptors.values()
        return not any(each.inode is inode and each not in mine for each in self.descriptions())

    def _write(self, actor: Actor, fd: int, data: bytes) -> int:
        """A write goes in two pieces, so that others can see it half done, and a kill can tear it."""
        half = len(data) // 2
        number = self._stop(actor, "write", (fd, data))
        if actor.on_a_full_disk:
            actor.on_a_full_disk = False
            actor.history = hash((actor.history, "write", errno.ENOSPC))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        description = actor.system.descriptors[fd]
        if number == errno.EIO:
            actor.history = hash((actor.history, "write", number))
            raise OSError(number, os.strerror(number))
        actor.system.put(description, data[:half])
        if number == errno.ENOSPC:
            # A full disk takes a part; only the next write says why.
            actor.on_a_full_disk = True
            actor.history = hash((actor.history, "write", half))
            return half
        self._stop(actor, "…write", (fd, data[half:]))
        actor.system.put(description, data[half:])
        actor.history = hash((actor.history, "write", len(data)))
        return len(data)

    def _stop(self, actor: Actor, name: str, arguments: tuple[Any, ...]) -> int:
        """Let others run; returns the errno that the call is to fail with, or 0."""
        if actor.system.dead:
            if name == "close":
                return 0
            raise Killed
        actor.pending = name, arguments
        if name == "sleep":
            actor.seen = self.disk.changes
        self.current = None
        number: int = self.hub.switch()
        if not actor.alive and name != "close":  # a finalizer would have to print it
            raise Killed
        return number

    # ------------------------------------------------------------------ what may happen

    def actions(self) -> list[Action]:
        """What may happen next; empty when all have ended."""
        alive = [actor for actor in self.actors.values() if actor.alive]
        alone = [actor for actor in alive if self._is_private(actor)]
        if alone:
            alive = alone[:1]
        able = [actor for actor in alive if not self._waits(actor)]
        # When all wait, time goes on: for those who look again after a while, before those who ask for a lock in vain.
        # A process that follows with a watch has looked at everything by then, and looks again before anybody
        # has waited for it in vain: all processes go on.
        waiting = [actor for actor in alive if actor.wants is None]
        able = (
            able
            or [actor for actor in waiting if not actor.follows and not actor.awaits]
            or [actor for actor in waiting if not actor.awaits]
            or waiting
            or alive
        )
        found: list[Action] = [("run", actor.name, 0) for actor in able]
        if self.kills:
            # Death before a call that changes nothing is death before the next one that does.
            found += [("kill", actor.name, 0) for actor in alive if self._is_mortal(actor)]
        if self.failures:
            for actor in able:
                assert actor.pending is not None
                name, arguments = actor.pending
                if name != "flock" or arguments[1] != UNLOCK:
                    found += [("fail", actor.name, number) for number in FAILURES.get(name, ())]
        return found

    def _is_mortal(self, actor: Actor) -> bool:
        """Whether it is worth while to kill *actor* now. A person's editor is not ours to kill."""
        assert actor.pending is not None
        return actor.name != PERSON and actor.pending[0] not in (*READING, "sleep", "is_watched")

    def _waits(self, actor: Actor) -> bool:
        """An actor that sleeps, and would find everything as it was, need not wake up before another has acted."""
        assert actor.pending is not None, actor.name
        name, _ = actor.pending
        if name != "sleep":
            # A program that opens a file half saved in place cannot know it (docs/guarantees.md, "Editors").
            return actor.opening and bool(self.busy_editors - {actor.name})
        if actor.wants is not None:
            return actor.wants.holder is not None
        return actor.seen == self.disk.changes or bool(self.busy_editors - {actor.name})

    def take(self, action: Action) -> None:
        """Let *action* happen."""
        verb, name, number = action
        actor = self.actors[name]
        assert actor.pending is not None
        self._steps.append((actor, verb, number, actor.pending))
        if verb == "kill":
            self.kills -= 1
            self._kill(actor)
            return
        if verb == "fail":
            self.failures -= 1
        self._go(actor, number)

    def _go(self, actor: Actor, number: int) -> None:
        self.current = actor
        actor.run.switch(number)
        self.current = None
        if actor.error is not None:
            self._broke(actor.error, actor.name)
        self.check()

    def _kill(self, actor: Actor) -> None:
        actor.system.die()
        store.abandon(engines.Files(actor.system))
        actor.history = 0
        actor.pending = None
        self.busy_editors.discard(actor.name)
        actor.run.switch(0)  # nothing that it still tries reaches the disk
        actor.state = None

    def steps(self) -> list[str]:
        """What has happened so far, for people."""
        lines = []
        for actor, verb, number, (name, arguments) in self._steps:
            call = f"{name}({', '.join(map(repr, arguments))})"
            if verb == "kill":
                lines.append(f"{actor.name}: killed before {call}")
            else:
                lines.append(f"{actor.name}: {call}" + (f" fails: {os.strerror(number)}" if number else ""))
        return lines

    # ------------------------------------------------------------------ the state of the world

    def key(self) -> int:
        """Equal for schedules after which everything is equal, but for chance in 64 bits."""
        holders = {
            id(description): name
            for name, actor in self.actors.items()
            for description in actor.system.descriptors.values()
        }
        inodes = {inode.number: inode for inode in self.disk.names.values()}
        for actor in self.actors.values():
            for description in actor.system.descriptors.values():
                inodes[description.inode.number] = description.inode
        disk = tuple(
            (
                number,
                inode.content,
                inode.times_changed,
                inode.holder and holders[id(inode.holder)],
                tuple(sorted(holders[id(description)] for description in inode.watchers)),
            )
            for number, inode in sorted(inodes.items())
        )
        names = tuple(sorted((path, inode.number) for path, inode in self.disk.names.items()))
        processes = tuple(
            (actor.history, actor.alive, actor.must, actor.alive and self._waits(actor))
            for actor in self.actors.values()
        )
        medium = (
            tuple((inode.number, tuple(inode.versions), inode.sick) for inode in inodes.values()),
            len(self.disk.entries),
        )
        return hash((disk, names, processes, self.kills, self.failures, medium if self.scenario.power else 0))

    def acknowledged(self) -> frozenset[str]:
        return frozenset(token for actor in self.actors.values() for token in actor.acknowledged)

    def told(self) -> frozenset[str]:
        """What watches have told to be in `log`."""
        changes = (change for actor in self.actors.values() for together in actor.told for change in together)
        return frozenset(change.new for change in changes if isinstance(change.new, str))

    def durable(self) -> frozenset[str]:
        """What was acknowledged as being on stable storage, where that was asked for."""
        return self.acknowledged() - {token for actor in self.actors.values() for token in actor.unsynced}

    def due(self) -> frozenset[str]:
        """What the end must have: everything acknowledged, or, where a person's save may have taken commits
        away, whatever a living process knows of it."""
        if not self.scenario.edited:
            return self.acknowledged()
        living = [actor for actor in self.actors.values() if actor.state is not None]
        known = {token for actor in living for view in actor.views for token in view}
        return frozenset(known.union(*(actor.acknowledged for actor in living)))

    def kept_beside(self, tokens: Iterable[str]) -> set[str]:
        """Those of *tokens* that are in a file beside, which a conflict with a person's save has left."""
        beside = b"".join(inode.content for path, inode in self.disk.names.items() if ".conflict-" in path)
        return {token for token in tokens if token.encode() in beside}

    def attempted(self) -> set[str]:
        return {token for actor in self.actors.values() for token in actor.attempted}

    def refused(self) -> set[str]:
        return {token for actor in self.actors.values() for token in actor.refused}

    # ------------------------------------------------------------------ the end

    def _broke(self, error: BaseException, who: str) -> None:
        if isinstance(error, BrokenPromise):
            raise error
        raise BrokenPromise(f"{who} got {type(error).__name__}: {error}") from error

    def dispose(self) -> None:
        """End all processes, without a trace on the disk."""
        for actor in self.actors.values():
            if actor.alive and actor.run:
                self._kill(actor)
            else:
                actor.system.die()
                store.abandon(engines.Files(actor.system))

    def descriptions(self) -> list[Description]:
        return [each for actor in self.actors.values() for each in actor.system.descriptors.values()]
