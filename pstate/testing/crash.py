"""Run a function on a state, and crash it at every system call that the store makes.

Each try is a process of its own on a `SimulatedDisk`, run from the beginning: to let a process go on from the middle,
twice, the function would have to be something that can be copied.
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

#: Where the state file is on the simulated disk.
PATH = "/state.yaml"

SCRIPT_BOOT, NEXT_BOOT = "b0070001", "b0070002"

#: Of a schedule, or a state, with more lines than this the message shows as many.
LONGEST = 30

Script = Callable[[PersistedState], object]
Steps = Callable[[], list[str]]  #: told only when something failed


class CrashFailure(AssertionError):
    """A crash from which the script, or its state, does not recover. The message tells how to get there."""

    happened: str  #: in one sentence
    steps: list[str]  #: what was done to the files, from the beginning
    state: dict[Any, Any] | None  #: what was found in the end; None when it could not be opened
    cause: Exception  #: what the check, the resumed script or the store raised; containers in it are plain copies
    said: list[str]  #: what *cause* says, and where it was raised, in lines; put into words while the state was open

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
    """What *error* says, and where it was raised if that is not plain from what it says."""
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
    """Say what *error* says, and put plain copies into it for what it holds of the state, which is about to end."""
    said = _said(error)
    # An exception may be frozen, as those of attrs are: so not by its own __setattr__.
    BaseException.__setattr__(error, "args", _without_state(error.args, []))
    vars(error).update({name: _without_state(value, []) for name, value in vars(error).items()})
    return said


def _without_state(value: Any, around: list[int]) -> Any:
    """*value*, or a copy of it that has plain copies of what it holds of a state. *around* are those that it is in."""
    if isinstance(value, (MappedDict, MappedList, MappedSet)):
        try:
            return value.copy()
        except expected(PStateError):
            return value  # the script, or the check, has closed it, and what it raised is what matters
    if type(value) not in (dict, list, tuple) or id(value) in around:
        return value
    items = list(value.values() if type(value) is dict else value)
    copied = [_without_state(item, [*around, id(value)]) for item in items]
    if all(map(is_, items, copied)):
        return value
    return dict(zip(value, copied, strict=True)) if type(value) is dict else type(value)(copied)


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What `crash_at_every_step` has tried."""

    steps: int  #: system calls that the script's store makes, each of them a place to die
    kills: int  #: deaths before each of them, and in the middle of each write
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
    """Run *script* on a state, crash it at every step, and have every state that is found then looked at by *check*.

    Both are functions of a `PersistedState`. Its file is on a simulated disk, and has *content* at first (None: there
    is none); *defaults* and *durability* are those of `PersistedState.open`. The script is run to its end, then again
    for every system call that the store makes for it, up to that call. There its process is killed: before the call,
    and for a write also in the middle of it. And the power goes there, which leaves everything that the disk may have
    made of what was not synced. After each crash, *check* gets a copy of the state that is found when the file is
    opened again; then, with *resume*, the script is run on what was found, to its end, and *check* gets the result too.

    *setup* is called before each run from the beginning: what the script does beside the state is undone there, by you.
    *progress* is called with the number of steps that are done, and of all.

    Raises CrashFailure for the first crash after which *check*, or the resumed script, raises an Exception; what the
    script raises in its first run as it is; RuntimeError when the script does not do the same each time.
    """
    __tracebackhide__ = True  # pytest: the failure is in the script, or its check, and not here
    if isinstance(content, str):
        content = content.encode()
    files = {} if content is None else {PATH: content}
    with _quiet():
        trials = _Trials(script, check, files, {"defaults": defaults, "durability": durability}, resume, setup)
        return trials.run(progress)


def kill(system: SimulatedSystem) -> None:
    """End a simulated process, as the system would: without a close, and with finalizers that do nothing."""
    system.die()
    store.abandon(engines.Files(system))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that each crash makes the store log: there are hundreds, and all of them are meant."""
    logger = logging.getLogger("pstate")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Process:
    """A simulated process, which notes its system calls, and dies at one of them if it is to."""

    def __init__(self, name: str, disk: SimulatedDisk, at: int = -1, torn: bool = False) -> None:
        self.system = SimulatedSystem(disk, self._before, name=name)
        self.calls: list[Call] = []
        self.at = at
        self.torn = torn
        self.said: list[str] = []  #: what the script has raised, in words

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
        """Open the state, do what *script* does, close the state; or die in between."""
        __tracebackhide__ = True
        try:
            state = PersistedState.open(PATH, fs=self.system, **options)
            script(state)
            state.close()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # A dead process raises nothing, whatever its script made of `Killed`.
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
        self.calls: list[str] = []  #: of the run that nobody disturbs
        self.kills = 0
        #: What the files that a power cut left say, by their content; and all that was ever found. As documents.
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
                f"the script did not do the same as in its first run: of {at + 1} system calls, not all were the same. "
                "It must, to be crashed at every step: seed what is random, and undo in setup= what it keeps beside "
                "the state."
            )
        return run

    def kill(self, run: _Process, images: Iterable[Image] = ()) -> None:
        """What is found after the death of *run*, and when the power goes there and leaves one of *images*."""
        __tracebackhide__ = True
        self.kills += 1
        disk = run.system.disk

        def steps() -> list[str]:
            return [*told(run.calls[: run.at]), _death(run)]

        # Looking comes before going on: then everything beside the state is still as it was at the death.
        self.look(disk, "The script was killed, and the check failed on what was found.", steps)
        new = self.look_after_power_cuts(run, images)
        self.go_on(disk, run, steps)
        self.go_on_after_power_cuts(run, new)

    def cut_power(self, run: _Process, images: Iterable[Image]) -> None:
        """What is found when the power goes after the end of *run*."""
        __tracebackhide__ = True
        self.go_on_after_power_cuts(run, self.look_after_power_cuts(run, images))

    def look_after_power_cuts(self, run: _Process, images: Iterable[Image]) -> list[tuple[Image, Steps]]:
        """Let the check see each of *images* once; returns those on which the script should go on.

        That is once for each state that they show: a power cut leaves hundreds of files, which show a few states. With
        a setup, what there is beside the state differs from call to call, and so all states are tried again at each.
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
            happened = "The power went, and the check failed on what was found."
            known = self.images[content] = self.look(SimulatedDisk(image, NEXT_BOOT), happened, steps)
            if known not in self.resumed:
                self.resumed.add(known)
                new.append((image, steps))
        return new

    def go_on_after_power_cuts(self, run: _Process, new: list[tuple[Image, Steps]]) -> None:
        __tracebackhide__ = True
        for image, steps in new:
            if self.resume and self.setup is not None:
                self.start(run.at)  # for what it does beside the state
            self.go_on(SimulatedDisk(image, NEXT_BOOT), run, steps)

    def look(self, disk: SimulatedDisk, happened: str, steps: Steps) -> bytes:
        """Let the check see what is on *disk*, without consequences there; returns the state as a document."""
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
        """Resume the script on *disk*, where *run* has died."""
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
        """What the files on *disk* say, to show it; None when they cannot be opened."""
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
            return [*told(run.calls[: run.at]), f"the power went {when}: {self.lost(run, image)}"]

        return steps

    def lost(self, run: _Process, image: Image) -> str:
        """Which commits of *run* are not in *image*, in words."""
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
        return "nobody knows what is lost"


def _death(run: _Process) -> str:
    call = run.calls[run.at]
    text = call.told(run.commits() + 1)
    if not run.torn:
        return f"killed before {text}"
    size = len(call.arguments[1])
    return f"killed when {size // 2} of the {size} bytes were written of {text}"
