"""Programs on a simulated server: every interleaving of their requests, with answers that are lost, or late, or both.

Each program is a greenlet that runs the code of `pstate.rows`. Before each of its requests it stops, and somebody
decides what happens to the request: the server does it and answers; it never arrives; it is done and the answer is
lost; it arrives later, from a session that the program has given up; a signal handler interrupts the wait for it; or
the program is killed. A schedule is the list of these decisions, and all schedules up to a number of faults are tried.

Afterwards, what was acknowledged must be in the state once, and what was refused must not be in it.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from greenlet import GreenletExit, greenlet

from pstate import ConflictError, PersistedState
from pstate.engine import Log, Memory
from pstate.memory import ops
from pstate.rows.log import RowsLog
from pstate.rows.server import Commit, Lost, Row
from pstate.store import Store, abandon
from stress.check import BrokenPromise, Trial, check
from stress.simulated.explore import quiet

_STORE, _NAME, _BEGINNING = "00000000-0000-0000-0000-000000000000", "state", "log: []\n"
#: A schedule that is longer gets nowhere.
MOST_STEPS = 400
#: After so many schedules, what they have left is collected.
COLLECTED = 500

#: What may happen to a request, besides "run": whether the server does it, and what the program sees.
FAULTS = {
    "request lost": (False, "lost"),
    "answer lost": (True, "lost"),
    "late": (None, "lost"),  # the server does it later
    "interrupted before": (False, "interrupt"),
    "interrupted after": (True, "interrupt"),
    "interrupted, late": (None, "interrupt"),
    "killed before": (False, "kill"),
    "killed after": (True, "kill"),
    "killed, late": (None, "kill"),
}


class Interrupt(BaseException):
    """What a signal handler raises."""


@dataclass(eq=False)
class Session:
    """A session as the server has it."""

    program: str
    is_over: bool = False  #: for the program
    late: list[Callable[[], object]] = field(default_factory=list)  #: what has not arrived yet


class Database:
    """What the server keeps of the one state."""

    def __init__(self) -> None:
        self.records: list[Row] = [("0", "token 0", "f", "[]")]
        self.snapshots = {0: _BEGINNING}
        self.locked_by: Session | None = None

    @property
    def head(self) -> Row:
        """The newest record."""
        return self.records[-1]

    def end(self, session: Session) -> None:
        """*session* has ended, and its transaction with it."""
        session.late.clear()
        if self.locked_by is session:
            self.locked_by = None

    def commit(self, commit: Commit, session: Session | None) -> bool:
        """Compare and set."""
        if (self.head[0], self.head[1]) != (str(commit.rev), commit.head):
            return False
        if self.locked_by not in (None, session):
            return False
        is_edit = commit.document is not None
        self.records.append((str(commit.rev + 1), commit.token, "t" if is_edit else "f", commit.body))
        return True

    def count(self, token: str) -> int:
        """How many records append *token*."""
        return sum(f'"{token}"' in body for _, _, _, body in self.records)

    def key(self) -> Hashable:
        """Equal where the two say the same."""
        return tuple(self.records), tuple(self.snapshots), self.locked_by and self.locked_by.program


class SimulatedServer:
    """See `pstate.rows.server.Server`."""

    is_durable = True

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self._number = 0
        self._session: Session | None = None
        self._is_dead = False  #: a program that was killed asks for nothing more

    @property
    def session(self) -> int:
        """See `Server`."""
        return self._number if self._session is not None else 0

    def connect(self, deadline: float) -> None:
        """See `Server`. A new session ends the former one, unless a pooler is in between."""
        if self._session is None:
            world = self._world
            if not world.is_pooled:
                for session in world.sessions:
                    if session.program == self._name:
                        world.database.end(session)
            self._session = Session(self._name)
            world.sessions.append(self._session)
            self._number += 1

    def close(self) -> None:
        """See `Server`."""
        if self._session is not None:
            self._world.database.end(self._session)
            self._session = None

    def forget(self) -> None:
        """See `Server`. Nobody forks here."""

    def unavailable(self, error: Exception) -> Exception:
        """See `Server`. The simulated server is always available."""
        return AssertionError(f"the server is said to be away: {error}")

    def _request(self, what: str, effect: Callable[[], Any], wants_lock: bool = False) -> Any:
        if self._is_dead:
            raise GreenletExit
        self.connect(float("inf"))
        session = self._session
        assert session is not None
        fate = self._world.stop(self._name, what, session, wants_lock)
        if fate == "run":
            return effect()
        is_done, sees = FAULTS[fate]
        session.is_over = True
        self._session = None
        if is_done:
            effect()
        elif is_done is None:
            session.late.append(effect)
        if sees == "lost":
            raise Lost("simulated")
        if sees == "interrupt":
            raise Interrupt
        self._is_dead = True
        raise GreenletExit

    def make_tables(self, deadline: float) -> None:
        """See `Server`. The tables already exist."""

    def begin_store(self, name: str, identity: str, token: str, deadline: float) -> None:
        """See `Server`. The state already exists."""

    def load(self, name: str, deadline: float) -> list[Row]:
        """See `Server`."""
        return self._request("load", self._load)  # type: ignore[no-any-return]

    def _load(self) -> list[Row]:
        database = self._world.database
        base = max(database.snapshots)
        head: list[Row] = [("0", database.head[0], _STORE, database.head[1], "1")]
        records: list[Row] = [("2", rev, None, token, body) for rev, token, _, body in database.records[base:]]
        return [*head, ("1", str(base), None, None, database.snapshots[base]), *records]

    def catch_up(self, store: str, rev: int, deadline: float) -> list[Row]:
        """See `Server`."""
        return self._request("catch up", lambda: self._world.database.records[rev:])  # type: ignore[no-any-return]

    def lock(self, store: str, rev: int, patience: float | None, deadline: float) -> list[Row]:
        """See `Server`."""
        self.connect(deadline)
        session = self._session
        database = self._world.database

        def take() -> list[Row]:
            database.locked_by = session
            return database.records[rev:]

        return self._request("lock", take, wants_lock=True)  # type: ignore[no-any-return]

    def commit_alone(self, commit: Commit, deadline: float) -> bool:
        """See `Server`."""
        return self._request("commit", partial(self._world.database.commit, commit, None))  # type: ignore[no-any-return]

    def commit_locked(self, commit: Commit, deadline: float) -> bool:
        """See `Server`."""
        session = self._session
        assert session is not None

        def both() -> bool:
            done = self._world.database.commit(commit, session)
            self._world.database.locked_by = None
            return done

        return self._request("commit and unlock", both)  # type: ignore[no-any-return]

    def end(self, word: str, deadline: float) -> None:
        """See `Server`."""
        session = self._session
        if session is not None:
            self._request(word, partial(self._end, session))

    def _end(self, session: Session) -> None:
        if self._world.database.locked_by is session:
            self._world.database.locked_by = None

    def token_of(self, store: str, rev: int, deadline: float) -> str | None:
        """See `Server`."""
        records = self._world.database.records
        return self._request("outcome", lambda: records[rev][1] if rev < len(records) else None)  # type: ignore[no-any-return]

    def newer_snapshot(self, store: str, after: int, last: int, deadline: float) -> tuple[int, str] | None:
        """See `Server`."""
        found = {rev: text for rev, text in self._world.database.snapshots.items() if after < rev <= last}
        return (max(found), found[max(found)]) if found else None

    def put_snapshot(self, store: str, rev: int, token: str, document: str, deadline: float) -> None:
        """See `Server`."""

        def put() -> None:
            if self._world.database.records[rev][1] == token:
                self._world.database.snapshots[rev] = document

        self._request("snapshot", put)

    def history(self, store: str, last: int, deadline: float) -> list[Row]:
        """See `Server`. Nobody asks for it here."""
        raise AssertionError("no program of a scenario asks for the history")

    def bell(self, store: str, ring: Callable[[], None]) -> None:
        """See `Server`."""

    def holder(self, store: str) -> tuple[str | None, float | None]:
        """See `Server`."""
        return None, None


class SimulatedEngine:
    """See `engine.Engine`: the one that the program *name* has."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    @property
    def key(self) -> int:
        """See `engine.Engine`."""
        return id(self)

    def log(self, address: str, memory: Memory, *, locking: object, **options: Any) -> Log:
        """See `engine.Engine`."""
        return RowsLog(address, _NAME, memory, SimulatedServer(self._world, self._name), **options)

    def name(self, address: str) -> str:
        """See `engine.Engine`."""
        return address

    def close_inherited(self) -> None:
        """See `engine.Engine`. Nobody forks here."""


class Program:
    """A program, and what it knows of what it did."""

    def __init__(self, world: World, name: str, steps: str) -> None:
        self.world = world
        self.name = name
        self.steps = steps  #: "c" is a change, "b" a block, "r" a read, "v" a vacuum
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        #: The changes that were interrupted, each with how often it was in the state then.
        self.interrupted: dict[str, int] = {}
        self.seen: list[tuple[str, ...]] = []
        self.request = ""  #: what it has stopped at
        self.session: Session | None = None
        self.wants_lock = False
        self.error: BaseException | None = None
        self.greenlet = greenlet(self._run)
        self.state: Any = None

    def open(self) -> None:
        """Open the state, before the schedule begins."""
        engine = SimulatedEngine(self.world, self.name)
        self.world.engines.append(engine)
        store = Store(f"simulated#{_NAME}", lock_timeout=None, engine=engine)
        handle = PersistedState.__new__(PersistedState)
        for name, value in (("_parent", ops.ROOT), ("_key", None)):
            ops.set_slot(handle, name, value)
        store.attach(handle, None)
        self.state = handle

    def _run(self) -> None:
        try:
            for number, step in enumerate(self.steps):
                token = f"{self.name}{number}"
                try:
                    self._take(step, token)
                except Interrupt:
                    self.interrupted[token] = self.world.database.count(token)
                except ConflictError:
                    self.refused.append(token)
        except GreenletExit:
            pass  # killed
        except Exception as error:
            self.error = error

    def _take(self, step: str, token: str) -> None:
        if step == "r":
            before = self.world.acknowledged()
            self.seen.append(tuple(self.state["log"].copy()))
            self._expect(before <= set(self.seen[-1]), f"a read lacks {before - set(self.seen[-1])}")
        elif step == "v":
            self.state.vacuum()
        elif step == "c":
            self.state["log"].append(token)
            self.acknowledged.append(token)
        else:
            with self.state.transaction():
                self.state["log"].append(token)
            self.acknowledged.append(token)

    def _expect(self, condition: bool, message: str) -> None:
        if not condition:
            raise BrokenPromise(f"{self.name}: {message}")

    def result(self) -> Hashable:
        """What it knows."""
        log = self.state._store.log
        known = (log.ledger.last if log.ledger else None, log._pending is None, log.hold.session != 0, log._is_behind)
        return (
            tuple(self.acknowledged), tuple(self.refused), tuple(self.interrupted.items()), tuple(self.seen),
            self.request, self.session is not None and self.session.is_over, known, self.state._store.view is None,
            bool(self.greenlet),
        )  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """Which programs there are, what each does, and how much goes wrong."""

    name: str
    programs: tuple[str, ...]
    faults: int = 1
    is_pooled: bool = False


class World:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.is_pooled = scenario.is_pooled
        self.database = Database()
        self.sessions: list[Session] = []
        self.engines: list[SimulatedEngine] = []
        self.faults = scenario.faults
        self.is_quiet = True
        self.hub = greenlet.getcurrent()
        self.programs = [Program(self, chr(ord("A") + n), steps) for n, steps in enumerate(scenario.programs)]
        self.fate = "run"
        for program in self.programs:
            program.open()
        self.is_quiet = False
        for program in self.programs:
            program.greenlet.switch()

    def acknowledged(self) -> set[str]:
        """What all programs were told is committed."""
        return {token for program in self.programs for token in program.acknowledged}

    def stop(self, name: str, request: str, session: Session, wants_lock: bool) -> str:
        """Called by the program *name* before *request*. Returns what happens to it."""
        if self.is_quiet:
            return "run"
        program = next(each for each in self.programs if each.name == name)
        program.request, program.session, program.wants_lock = request, session, wants_lock
        self.hub.switch()
        return self.fate

    def actions(self) -> list[tuple[str, int]]:
        """What may happen next: the first is what usually does."""
        found = []
        for number, program in enumerate(self.programs):
            if program.greenlet:
                owner = self.database.locked_by
                if not program.wants_lock or owner is None or owner is program.session:
                    found.append(("run", number))
                if self.faults:
                    found += [(fault, number) for fault in FAULTS]
        for number, session in enumerate(self.sessions):
            if session.is_over and session.late:
                found.append(("arrive", number))
            if session.is_over and (session.late or self.database.locked_by is session):
                found.append(("end", number))
        return found

    def take(self, action: tuple[str, int]) -> None:
        """Let *action* happen."""
        what, number = action
        if what == "arrive":
            self.sessions[number].late.pop(0)()
        elif what == "end":
            self.database.end(self.sessions[number])
        else:
            self.faults -= what != "run"
            self.fate = what
            self.programs[number].greenlet.switch()
            for program in self.programs:
                if program.error is not None:
                    raise program.error

    def key(self) -> Hashable:
        """Equal where everything that may follow is."""
        return (
            self.database.key(), self.faults, tuple(program.result() for program in self.programs),
            tuple((session.program, session.is_over, len(session.late)) for session in self.sessions
                  if session.late or self.database.locked_by is session),
        )  # fmt: skip

    def judge(self) -> None:
        """Everything has come to its end: what must hold."""
        self.is_quiet = True
        reader = Program(self, "reader", "")
        reader.open()
        log = tuple(reader.state["log"].copy())
        counted = Counter(log)
        problems = [
            f"{token} was acknowledged, and is {counted[token]} times in {log}"
            for token in self.acknowledged()
            if counted[token] != 1
        ]
        problems += [f"{token} is doubled in {log}" for token, count in counted.items() if count > 1]
        for program in self.programs:
            problems += [f"{token} was refused, and is in {log}" for token in program.refused if counted[token]]
            problems += [
                f"{program.name} saw {seen}, and then {log}" for seen in program.seen if seen != log[: len(seen)]
            ]
            if len(program.interrupted) == 1:  # nothing has cut the decision short
                problems += [
                    f"{token} was interrupted, was {count} times in the state then, and is in {log} later"
                    for token, count in program.interrupted.items()
                    if counted[token] != count
                ]
            if program.greenlet or not program.seen or program.steps[-1] != "r":
                continue
            late = [token for token in program.interrupted if counted[token] and token not in program.seen[-1]]
            if len(program.seen) == program.steps.count("r"):
                problems += [f"{token} was interrupted, was not seen, and came later: {log}" for token in late]
        if problems:
            raise BrokenPromise("; ".join(problems))

    def dispose(self) -> None:
        """Let the programs end."""
        self.is_quiet = True
        for program in self.programs:
            if program.greenlet:
                program.greenlet.throw(GreenletExit)
        for engine in self.engines:
            abandon(engine)


#: The last step of each is a read, which shows what it was left with.
SCENARIOS = (
    Scenario("two changes", ("cr", "cr")),
    Scenario("a change and a block", ("cr", "br")),
    Scenario("two blocks", ("br", "br")),
    Scenario("two changes, through a pooler", ("cr", "cr"), is_pooled=True),
    Scenario("two changes, two faults", ("cr", "cr"), faults=2),
    Scenario("a change and a block, two faults", ("cr", "br"), faults=2),
    Scenario("two blocks, through a pooler", ("br", "br"), is_pooled=True),
    Scenario("a change and a block, through a pooler, two faults", ("cr", "br"), faults=2, is_pooled=True),
    Scenario("changes, a block and a reader", ("ccr", "br", "rr")),
    Scenario("a vacuum, a change and a block", ("vr", "cr", "br")),
)


def explore(scenario: Scenario, goes_on: Callable[[int], bool] = lambda tried: True) -> tuple[int, bool]:
    """Try every schedule of *scenario*, up to equivalence; how many ends there were, and whether those are all.

    Raises BrokenPromise, with the schedule, for the first in which a promise breaks.
    """
    visited: set[int] = set()
    branches: list[list[tuple[str, int]]] = [[]]
    ends = tried = 0
    with quiet():
        while branches:
            if not goes_on(ends):
                return ends, False
            path = branches.pop()
            tried += 1
            if not tried % COLLECTED:
                gc.collect()  # at a moment of ours: see `quiet`
            world = World(scenario)
            told: list[str] = []
            try:
                for action in path:
                    told.append(_told(world, action))
                    world.take(action)
                while actions := world.actions():
                    key = hash(world.key())
                    if key in visited:
                        break
                    visited.add(key)
                    branches += [[*path, action] for action in actions[1:]]
                    path = [*path, actions[0]]
                    told.append(_told(world, actions[0]))
                    world.take(actions[0])
                    if len(path) > MOST_STEPS:
                        raise BrokenPromise("nobody gets anywhere")
                else:
                    if any(program.greenlet for program in world.programs):
                        raise BrokenPromise("everybody waits")
                    world.judge()
                    ends += 1
            except Exception as error:
                raise BrokenPromise(f"{scenario.name}: {error!r}\n  " + "\n  ".join(told)) from error
            finally:
                world.dispose()
    return ends, True


def _told(world: World, action: tuple[str, int]) -> str:
    what, number = action
    if what in ("arrive", "end"):
        return f"{world.sessions[number].program}'s old session: {what}"
    program = world.programs[number]
    return f"{program.name}: {program.request}" + ("" if what == "run" else f", {what}")


@check("server", "A commit on a server takes effect exactly once, whatever is lost on the way.")
def server(trial: Trial) -> None:
    """Every schedule of a few small scenarios."""
    for scenario in SCENARIOS:
        ends, is_complete = explore(scenario, lambda tried: trial.goes_on())
        trial.count("schedules", ends)
        if not is_complete:
            trial.unfinished.append(scenario.name)
