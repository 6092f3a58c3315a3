"""Runs a function on a state, and crashes it at every system call that the store makes.

Each try is a process of its own on a `SimulatedDisk`, run from the beginning, because a function that is halfway done
cannot be copied and run on twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import is_
from typing import Any, Literal

from pstate import engines, store
from pstate.errors import PStateError
from pstate.memory.dicts import MappedDict
from pstate.memory.lists import MappedList
from pstate.memory.sets import MappedSet
from pstate.signals import expected
from pstate.state import PersistedState
from pstate.testing.disk import Image, SimulatedDisk
from pstate.testing.schedule import Call, told
from pstate.testing.system import Killed, SimulatedSystem
from pstate.text import dumping

#: The path of the state file on the simulated disk.
PATH = "/state.yaml"

SCRIPT_BOOT, NEXT_BOOT = "b0070001", "b0070002"

#: The message shows at most so many lines of a schedule, or of a state.
LONGEST = 30

Script = Callable[[PersistedState], object]
Steps = Callable[[], list[str]]  #: called only after a failure


class CrashFailure(AssertionError):
    """A crash from which the script, or its state, does not recover. The message has the steps that lead to it."""

    happened: str  #: in one sentence
    steps: list[str]  #: the changes of files, from the beginning
    state: dict[Any, Any] | None  #: the state that was found at the end; None if it could not be opened
    cause: Exception  #: the exception of the check, the resumed script or the store, with plain copies of containers
    said: list[str]  #: the message of *cause*, and where it was raised, in lines; made while the state was open

    def __init__(
        self,
        happened: str,
        steps: list[str],
        state: dict[Any, Any] | None,
        cause: Exception,
        said: list[str] | None = None,
    ) -> None:
        said = _said(cause) if said is None else said
        super().__init__(happened, steps, state, cause, said)  # all of it, so that it can be pickled
        self.happened = happened
        self.steps = steps
        self.state = state
        self.cause = cause
        self.said = said

    def __str__(self) -> str:
        lines = [self.happened, *_numbered(self.steps)]
        if self.state is not None:
            found = dumping.dump(self.state).decode().splitlines()
            if len(found) > LONGEST:
                found[LONGEST:] = [f"… {len(found) - LONGEST} more lines"]
            lines += ["the state:", *(f"    {line}" for line in found)]
        lines += ["raised:", *(f"    {line}" for line in self.said)]
        return "\n".join(lines)


def _numbered(steps: list[str]) -> Iterator[str]:
    left_out = max(0, len(steps) - LONGEST)
    if left_out:
        yield f"    … {left_out} steps before"
    for number, step in enumerate(steps[left_out:], left_out + 1):
        yield f"{number:4d}. {step}"


def _said(error: BaseException) -> list[str]:
    """The message of *error*, and where it was raised, unless it is an assertion with a message."""
    try:
        text = str(error)
    except expected(Exception) as problem:
        text = f"its message cannot be shown ({type(problem).__name__})"
    lines = f"{type(error).__name__}: {text}".splitlines() if text else [type(error).__name__]
    if not (isinstance(error, AssertionError) and text):
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        if traceback is not None:
            lines.append(f"at {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}")
    return lines


def _part_with_state(error: BaseException) -> list[str]:
    """The message of *error*, in which containers of the state, which is about to end, are replaced by plain copies."""
    said = _said(error)
    # Not by its own __setattr__: an exception may be frozen, as those of attrs are.
    BaseException.__setattr__(error, "args", _without_state(error.args, []))
    vars(error).update({name: _without_state(value, []) for name, value in vars(error).items()})
    return said


def _without_state(value: Any, around: list[int]) -> Any:
    """*value*, with plain copies of the containers of a state in it. *around* are the ids of the values around it."""
    if isinstance(value, (MappedDict, MappedList, MappedSet)):
        try:
            return value.copy()
        except expected(PStateError):
            return value  # the script, or the check, has closed the state, and its exception is what matters
    if type(value) not in (dict, list, tuple) or id(value) in around:
        return value
    items = list(value.values() if type(value) is dict else value)
    copied = [_without_state(item, [*around, id(value)]) for item in items]
    if all(map(is_, items, copied)):
        return value
    return dict(zip(value, copied, strict=True)) if type(value) is dict else type(value)(copied)


@dataclass(frozen=True, slots=True)
class CrashReport:
    """The numbers of a run of `crash_at_every_step`."""

    steps: int  #: system calls of the script's store, each of which was a place to crash
    kills: int  #: kills before each of them, and in the middle of each write
    power_cuts: int  #: different files that a power cut could leave
    states: int  #: different states that were found, and checked


def crash_at_every_step(
    script: Script,
    check: Script,
    *,
    defaults: dict[Any, Any] | None = None,
    content: str | bytes | None = None,
    durability: Literal["process", "power"] = "process",
    resume: bool = True,
    setup: Callable[[], object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CrashReport:
    """Run *script* on a state, crash it at every step, and call *check* with each state that is found afterwards.

    Both are functions of a `PersistedState`. Its file is on a simulated disk, and has *content* at first (None: it does
    not exist); *defaults* and *durability* are those of `PersistedState.open`. The script is run to its end, and then
    again for every system call that the store makes for it, up to that call. There its process is killed: before the
    call, and for a write also in the middle of it. The power is cut there as well, which leaves every state that the
    disk may have for bytes that were not synced. After each crash, *check* gets a copy of the state that is found when
    the file is opened again. Then, with *resume*, the script is run on that state to its end, and *check* gets the
    result too.

    *setup* is called before each run from the beginning: use it to undo what the script does outside the state.
    *progress* is called with the number of steps that are done, and of all steps.

    Raises CrashFailure for the first crash after which *check*, or the resumed script, raises an Exception. An
    exception of the script in its first run is raised as it is. Raises RuntimeError if the script does not do the same
    each time.
    """
    __tracebackhide__ = True  # pytest: the failure is in the script, or its check, and not here
    if isinstance(content, str):
        content = content.encode()
    files = {} if content is None else {PATH: content}
    with _quiet():
        trials = _Trials(script, check, files, {"defaults": defaults, "durability": durability}, resume, setup)
        return trials.run(progress)


def kill(system: SimulatedSystem) -> None:
    """End a simulated process, as the system would: without a close, and without effects of finalizers."""
    system.die()
    store.abandon(engines.Files(system))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings that the store logs after each crash: there are hundreds, all of them intended."""
    logger = logging.getLogger("pstate")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Process:
    """A simulated process, which notes its system calls, and dies at call number *at*, if that is not negative."""

    def __init__(self, name: str, disk: SimulatedDisk, at: int = -1, torn: bool = False) -> None:
        self.system = SimulatedSystem(disk, self._before, name=name)
        self.calls: list[Call] = []
        self.at = at
        self.torn = torn
        self.said: list[str] = []  #: the message of the exception that the script has raised

    def _before(self, system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
        self.calls.append(Call.of(system, name, arguments))
        if len(self.calls) - 1 != self.at:
            return
        if self.torn:
            fd, data = arguments
            system.put(system.descriptors[fd], data[: len(data) // 2])
        kill(system)
        if name != "close":  # by a finalizer, perhaps, where an exception would only be printed
            raise Killed

    def run(self, script: Script, options: dict[str, Any]) -> None:
        """Open the state, run *script*, close the state; or die in between."""
        __tracebackhide__ = True
        try:
            state = PersistedState.open(PATH, fs=self.system, **options)
            script(state)
            state.close()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # A dead process raises nothing, even if its script has turned `Killed` into another exception.
            if not self.system.dead:
                self.said = _part_with_state(error)
                raise
        finally:
            kill(self.system)

    def commits(self) -> int:
        return sum(len(call.commits()) for call in self.calls[: self.at if self.at >= 0 else None])


class _Trials:
    """All crashes of one script."""

    def __init__(
        self,
        script: Script,
        check: Script,
        files: Image,
        options: dict[str, Any],
        resume: bool,
        setup: Callable[[], object] | None,
    ) -> None:
        self.script = script
        self.check = check
        self.files = files
        self.options = options
        self.resume = resume
        self.setup = setup
        self.calls: list[str] = []  #: of the undisturbed run
        self.kills = 0
        #: As documents: the states of files that a power cut has left, by content; and all states that were found.
        self.images: dict[frozenset[tuple[str, bytes]], bytes] = {}
        self.states: set[bytes] = set()
        self.resumed: set[bytes] = set()

    def run(self, progress: Callable[[int, int], None] | None) -> CrashReport:
        __tracebackhide__ = True
        first = self.start()
        self.calls = [call.name for call in first.calls]
        self.look(first.system.disk, "The script ran to its end, and the check failed.", lambda: told(first.calls))
        images: list[Image] = []
        for at in range(len(self.calls) + 1):
            run = self.start(at)
            if not at or run.calls[at - 1].changes():
                images = list(run.system.disk.after_power_cut())
            if at == len(self.calls):
                self.cut_power(run, images)
                continue
            self.kill(run, images)
            if self.calls[at] == "write":
                self.kill(self.start(at, torn=True))
            if progress is not None:
                progress(at + 1, len(self.calls))
        return CrashReport(len(self.calls), self.kills, len(self.images), len(self.states))

    def start(self, at: int = -1, torn: bool = False) -> _Process:
        """Run the script from the beginning, to its end or up to call number *at*."""
        __tracebackhide__ = True
        if self.setup is not None:
            self.setup()
        run = _Process("script", SimulatedDisk(self.files, SCRIPT_BOOT), at, torn)
        run.run(self.script, self.options)
        if at >= 0 and [call.name for call in run.calls] != self.calls[: at + 1]:
            raise RuntimeError(
                f"the script did not repeat its first run: not all of the first {at + 1} system calls were the same. "
                "To be crashed at every step, it must repeat them: seed random numbers, and undo in setup= what the "
                "script changes outside the state."
            )
        return run

    def kill(self, run: _Process, images: Iterable[Image] = ()) -> None:
        """Check the state after the death of *run*, and those after a power cut there, which leaves one of *images*."""
        __tracebackhide__ = True
        self.kills += 1
        disk = run.system.disk

        def steps() -> list[str]:
            return [*told(run.calls[: run.at]), _death(run)]

        # First look, then go on: so everything outside the state is still as it was at the death.
        self.look(disk, "The script was killed, and the check failed on the state that was found.", steps)
        new = self.look_after_power_cuts(run, images)
        self.go_on(disk, run, steps)
        self.go_on_after_power_cuts(run, new)

    def cut_power(self, run: _Process, images: Iterable[Image]) -> None:
        """Check the states after a power cut at the end of *run*."""
        __tracebackhide__ = True
        self.go_on_after_power_cuts(run, self.look_after_power_cuts(run, images))

    def look_after_power_cuts(self, run: _Process, images: Iterable[Image]) -> list[tuple[Image, Steps]]:
        """Check each of *images* once; returns those on which the script should go on.

        These are one for each state: a power cut leaves hundreds of different files, but only a few states. With a
        setup, the world outside the state differs from call to call, so all states are tried again at each.
        """
        __tracebackhide__ = True
        if self.setup is not None:
            self.resumed = set()
        new: list[tuple[Image, Steps]] = []
        for image in images:
            content = frozenset(image.items())
            known = self.images.get(content)
            if known is not None and (self.setup is None or known in self.resumed):
                continue
            steps = self.steps_to_power_cut(run, image)
            happened = "The power was cut, and the check failed on the state that was found."
            known = self.images[content] = self.look(SimulatedDisk(image, NEXT_BOOT), happened, steps)
            if known not in self.resumed:
                self.resumed.add(known)
                new.append((image, steps))
        return new

    def go_on_after_power_cuts(self, run: _Process, new: list[tuple[Image, Steps]]) -> None:
        __tracebackhide__ = True
        for image, steps in new:
            if self.resume and self.setup is not None:
                self.start(run.at)  # for its effects outside the state
            self.go_on(SimulatedDisk(image, NEXT_BOOT), run, steps)

    def look(self, disk: SimulatedDisk, happened: str, steps: Steps) -> bytes:
        """Check the state on a copy of *disk*; returns the state as a document."""
        __tracebackhide__ = True
        system = SimulatedSystem(SimulatedDisk(disk.files(), disk.boot), name="check")
        found: dict[Any, Any] | None = None
        try:
            state = PersistedState.open(PATH, fs=system, **self.options)
            found = state.snapshot()
            self.check(state)
        except Exception as error:
            failure, said = error, _part_with_state(error)
        else:
            document = dumping.dump(found)
            self.states.add(document)
            return document
        finally:
            kill(system)
        if found is None:
            happened = "The state could not be opened again."
        raise CrashFailure(happened, steps(), found, failure, said) from None

    def go_on(self, disk: SimulatedDisk, run: _Process, steps: Steps) -> None:
        """Resume the script on *disk*, after the death of *run*."""
        __tracebackhide__ = True
        if not self.resume:
            return
        resumed = _Process("resumed", disk)

        def all_steps() -> list[str]:
            return [*steps(), "the script was run again", *told(resumed.calls, run.commits() + 1)]

        try:
            resumed.run(self.script, self.options)
        except Exception as error:
            failure = error
        else:
            self.look(disk, "The script was run again after a crash, and the check failed on its result.", all_steps)
            return
        happened = "The script was run again after a crash, and failed."
        raise CrashFailure(happened, all_steps(), self.state_of(disk), failure, resumed.said) from None

    def state_of(self, disk: SimulatedDisk) -> dict[Any, Any] | None:
        """The state on *disk*, for a message; None if it cannot be opened."""
        system = SimulatedSystem(SimulatedDisk(disk.files(), disk.boot), name="reader")
        try:
            return PersistedState.open(PATH, fs=system, **self.options).snapshot()
        except Exception:
            return None
        finally:
            kill(system)

    def steps_to_power_cut(self, run: _Process, image: Image) -> Steps:
        def steps() -> list[str]:
            when = f"before {run.calls[run.at].told(run.commits() + 1)}" if run.at < len(run.calls) else "at the end"
            return [*told(run.calls[: run.at]), f"the power was cut {when}: {self.lost(run, image)}"]

        return steps

    def lost(self, run: _Process, image: Image) -> str:
        """The commits of *run* that are not in *image*, in words."""
        found = self.state_of(SimulatedDisk(image, NEXT_BOOT))
        if PATH not in image and PATH not in self.files:
            return "the new file is lost"
        contents = [self.files.get(PATH, b"")]
        for call in run.calls[: run.at]:
            contents += [call.after for _ in call.commits()]
        last = len(contents) - 1
        for number in range(last, -1, -1):
            if found == self.state_of(SimulatedDisk({PATH: contents[number]}, SCRIPT_BOOT)):
                if number == last:
                    return "no commit is lost"
                return f"commit {last} is lost" if number + 1 == last else f"commits {number + 1} to {last} are lost"
        return "the state is not that of any commit"


def _death(run: _Process) -> str:
    call = run.calls[run.at]
    text = call.told(run.commits() + 1)
    if not run.torn:
        return f"killed before {text}"
    size = len(call.arguments[1])
    return f"killed when {size // 2} of the {size} bytes were written of {text}"
