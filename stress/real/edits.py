"""Let a person's editors save a state while programs write it: every edit, and every acknowledged commit, stays.

The person changes `note`, which no program touches, and sometimes `both`, which they do, and writes comments: above
keys and elements, and after them. Each program counts its commits in a key of its own, moves elements of one list and
puts others between them, and appends a token for each commit to another list: a commit that was lost is a token that is
missing, one that was made twice is a token that occurs twice. No program removes anything that the person has put a
comment to, so every comment must stay, right where it belongs. The programs tell of each commit after its call has
returned, and they live until everything has settled, so what docs/guarantees.md says of processes that die does not
excuse a loss; one that closes the file and opens it again does so when nobody is editing.

Neither is what it says of saves in place. One that was not over when a vacuum exchanged the file went into a file that
nobody sees any more; whether that happened is read off that file, where the vacuum's trailer must be the last line. One
that paused for as long as pstate waits (it is told to wait longer here) may be taken for finished. Those are counted,
and the round ends, because what is right is unknown then.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import yaml

from pstate import DurabilityUnknown, EditConflict, InvalidEditError, StateFileError
from pstate.file import format as f
from pstate.file import limits
from pstate.values import same
from stress.check import BrokenPromise, Trial, check, logged
from stress.real.comments import Comments
from stress.real.editors import EDITORS, Editor, Save
from stress.real.workers import LOADER, PATIENCE, Crew, Ended, Link, Worker, open_state, read_fresh

#: For the programs: how long a file that is saved in place must be left alone. Longer than in life, because here
#: everybody shares few processors, and an editor may have to wait for its turn.
QUIET = 0.2
SAVES_PER_ROUND = 8

#: What the person begins with. Independent comments at its ends must stay there.
HEADER = "# what several programs count\n\n"
FOOTER = "\n# the end\n"
DOCUMENT = """\
note: old
both: nobody
jobs:
  - job0
  - job1
  - job2
  - job3
log:
  - begin
"""
JOBS = [f"job{number}" for number in range(4)]


# ---------------------------------------------------------------------- the programs


def write(link: Link, path: Path) -> None:
    """A program that commits when it is told to, and tells what was acknowledged."""
    limits.QUIET, limits.QUIET_AT_MOST = QUIET, 20.0
    state = open_state(path, lock_timeout=PATIENCE)
    dice = Random(link.name)
    link.tell("here")
    k = 0
    while True:
        match link.hear():
            case "work", number, both:
                done: list[tuple[int, str, float, float]] = []
                problem = ""
                for _ in range(number):
                    k += 1
                    value = f"{link.name}{k}" if both else ""
                    began = time.monotonic()
                    try:
                        with state.transaction():
                            count(state[link.name], k)
                            rearrange(state.jobs, f"{link.name}{k}", dice)
                            state.log.append(f"{link.name}{k}")
                            if dice.random() < 0.02:
                                time.sleep(dice.random() * QUIET)  # a save may come within a transaction
                            if value:
                                state.both = value
                    except InvalidEditError:
                        problem = "not parsed"  # refused
                    except DurabilityUnknown:
                        done.append((k, value, began, time.monotonic()))  # and this program goes on to know it
                    except EditConflict as error:
                        if error.conflict_path is not None:
                            problem = "conflict"
                            break
                        problem = "undone"
                    else:
                        done.append((k, value, began, time.monotonic()))
                link.tell((done, problem))
            case "vacuum":
                try:
                    state.vacuum()
                except EditConflict:
                    link.tell(([], "conflict"))
                except InvalidEditError:
                    link.tell(([], "not parsed"))
                else:
                    link.tell(([], ""))
            case "settle", note:
                link.tell(await_note(state, note))
            case "reopen":
                state.close()
                state = open_state(path, lock_timeout=PATIENCE)
                link.tell(([], ""))
            case "look":
                link.tell(state.snapshot())
            case "close":
                state.close()
                return


def count(mine: Any, k: int) -> None:
    """A number that changes, and an entry that comes and goes."""
    mine.n = k
    if k % 3:
        mine.odd = [k]
    else:
        mine.pop("odd", None)


def rearrange(jobs: Any, token: str, dice: Random) -> None:
    """Move a job, put one more between them, or take out one that a program has put there."""
    match dice.randrange(6):
        case 0:
            jobs.insert(dice.randrange(len(jobs) + 1), jobs.pop(dice.randrange(len(jobs))))
        case 1:
            jobs.insert(dice.randrange(len(jobs) + 1), token)
        case 2:
            ours = [job for job in jobs if job not in JOBS]
            if ours:
                jobs.remove(dice.choice(ours))


def await_note(state: Any, note: str) -> tuple[str, str]:
    """Read until the person's edit is visible; returns what is, and what we were told on the way, or ""."""
    found = told = ""
    began = time.monotonic()
    while True:
        try:
            found = state.get("note")
            if time.monotonic() > began + 1:
                with state.transaction():
                    pass  # a writer does not put up with what it cannot read
        except EditConflict:
            told = "conflict"
            continue
        except InvalidEditError:
            if time.monotonic() > began + 2:
                return found, "refused"
        if found == note or time.monotonic() > began + 10:
            return found, told
        time.sleep(0.001)  # what it waits for is its own next look at the file


# ---------------------------------------------------------------------- the round


class Conflict(Exception):
    """A program was told that the edit and its commits cannot both be in the file."""


class Round:
    """A state, the programs that write it, and the person."""

    def __init__(self, trial: Trial, crew: Crew, path: Path) -> None:
        dice = trial.random
        self.trial = trial
        self.crew = crew
        self.dice = dice
        self.path = path
        self.note = "old"
        self.saved_both = ("", 0.0)  #: the person's last value of `both`, and when it began to be saved
        names = "ab"[: dice.randrange(1, 3)] if dice.random() < 0.7 else "abc"
        path.write_text(HEADER + DOCUMENT + "".join(f"{name}:\n  n: 0\n" for name in names) + FOOTER)
        lines = ["note:", "both:", "jobs:", "log:", *(f"{name}:" for name in names), *(f"  - {job}" for job in JOBS)]
        self.comments = Comments(HEADER, FOOTER, lines)
        self.writers = [crew.start(name, write, path) for name in names]
        for writer in self.writers:
            writer.hear()  # a program that opens the file after an edit does not know what it was before
        self.acknowledged = dict.fromkeys(names, 0)
        self.tokens: set[str] = set()
        self.both: list[tuple[str, float]] = []  #: what programs set it to, and when that was acknowledged
        self.busy: set[Worker] = set()
        self.told_of_conflict = False
        self.steps: list[str] = []  #: what was done, for people
        self._progress = threading.Condition()

    # The programs

    def note_step(self, step: str) -> None:
        self.steps.append(f"{time.monotonic():.6f} {step}")

    def order(self, writer: Worker, order: Any) -> None:
        self.note_step(f"{writer.name} is told to {order}")
        writer.tell(order)
        self.busy.add(writer)

    def listen(self, limit: float = PATIENCE) -> None:
        """Hear who has finished what it was told to."""
        for writer, answer in self.crew.listen(sorted(self.busy, key=str), limit):
            if answer is None:
                raise BrokenPromise(f"{writer} has died")
            self.busy.discard(writer)
            self.note_answer(writer, answer)
        with self._progress:
            self._progress.notify_all()

    def note_answer(self, writer: Worker, answer: Any) -> None:
        done, problem = answer
        acknowledged = (
            f"{done[0][2]:.6f} to {done[-1][3]:.6f} {writer.name}{done[0][0]} to {done[-1][0]}" if done else ""
        )
        self.note_step(f"{writer.name} did {acknowledged} {problem}")
        for k, value, _, ended in done:
            self.acknowledged[writer.name] = k
            self.tokens.add(f"{writer.name}{k}")
            if value:
                self.both.append((value, ended))
        self.trial.count("commits", len(done))
        if problem == "conflict":
            self.told_of_conflict = True
        elif problem == "undone":
            self.trial.count("transactions undone because of a save")
        elif problem:
            self.trial.count("commits refused because an edit did not parse")

    def work(self, both: bool, vacuums: bool = True) -> None:
        """Let everybody who is idle go on, and hear somebody."""
        for writer in self.writers:
            if writer not in self.busy:
                if vacuums and self.dice.random() < 0.1:
                    self.trial.count("vacuums")
                    self.order(writer, "vacuum")
                else:
                    self.order(writer, ("work", self.dice.randrange(1, 8), both))
        self.listen()

    def finish_work(self) -> None:
        while self.busy:
            self.listen()

    def breathe(self) -> None:
        """In the editor: wait until a program has committed, but not for long: it may be waiting for us."""
        with self._progress:
            self._progress.wait(QUIET / 20)

    # The person

    def save(self, editor: Editor) -> bool:
        """One edit, while everybody writes. False if what the file must have is unknown."""
        dice = self.dice
        both = dice.random() < 0.4
        self.note = f"edit{dice.randrange(10**6)}" + "x" * dice.randrange(30)
        changes = self.comments.change(dice, "note:", self.note)
        value = f"person{dice.randrange(10**6)}" if both and dice.random() < 0.6 else ""
        if value:
            changes |= self.comments.change(dice, "both:", value)
        for line in dice.sample(sorted(self.comments.above.keys() - {"note:", "both:"}), dice.randrange(3)):
            changes |= self.comments.change(dice, line)
        for _ in range(dice.randrange(3)):
            self.work(both)
        has_read, may_write = threading.Event(), threading.Event()

        def hold() -> None:
            has_read.set()
            may_write.wait()

        save = Save(self.path, changes, hold, self.breathe)
        # Into which file a real program saves in place is unknown: into the one at the path when it may begin, if
        # nobody exchanges it for another one before somebody has noticed the save.
        vacuums = not (editor.in_place and editor.program)
        with ThreadPoolExecutor(1) as thread:
            saving = thread.submit(editor.save, save)
            try:
                while not has_read.is_set() and not saving.done():
                    self.work(both)
                self.note_step(f"the editor ({editor.name}) has read the file")
                if dice.random() < 0.5:
                    self.trial.count("stale copies")
                    for _ in range(dice.randrange(1, 6)):
                        self.work(both)
                if not vacuums:
                    self.finish_work()
                began = time.monotonic()
                self.note_step(f"the editor begins to save {changes}")
                with self.held() as old:
                    may_write.set()
                    while not saving.done():
                        self.work(both, vacuums)
                    saving.result()
                    self.note_step("the editor has saved")
                    if editor.in_place and self.is_in_a_window(save, old):
                        self.finish_work()
                        return False
            finally:
                may_write.set()
                if save.into >= 0:
                    os.close(save.into)
        if value:
            self.saved_both = value, began
        for _ in range(dice.randrange(3)):
            self.work(both)
        self.finish_work()
        return True

    @contextmanager
    def held(self) -> Iterator[int]:
        """The file that is at the path now, wherever it goes."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def is_in_a_window(self, save: Save, old: int) -> bool:
        """Whether the save in place is one of those that docs/guarantees.md excepts."""
        if save.longest_pause > QUIET / 2:
            self.trial.count("saves in place that paused too long (not judged)")
            return True
        into = save.into if save.into >= 0 else old
        if os.path.samestat(os.fstat(into), self.path.stat()):
            return False
        content = os.pread(into, os.fstat(into).st_size, 0)
        if f.split_trailer(content) is not None or f.scan(content).trailer is not None:
            return False  # the save was over before the vacuum said that it was going to exchange the file
        self.trial.count("saves in place that a vacuum overtook (not judged)")
        return True

    # What the file must have

    def judge(self, what: str) -> None:
        for writer in self.writers:
            writer.tell(("settle", self.note))
        answers = [(writer, *writer.hear()) for writer in self.writers]
        if any(told == "refused" for _, _, told in answers):
            self.judge_refusal(what)
            raise Conflict
        for writer, found, told in answers:
            self.told_of_conflict = self.told_of_conflict or told == "conflict"
            if found != self.note:
                raise BrokenPromise(f"{what}: {writer.name} reads the note {found!r}, the person wrote {self.note!r}")
        if self.is_in_conflict():
            self.judge_conflict(what)
            raise Conflict
        for writer in self.writers:
            self.order(writer, ("work", 1, False))
            self.finish_work()
        if self.is_in_conflict():
            self.judge_conflict(what)
            raise Conflict
        found = read_fresh(self.path)
        self.expect_edit(what, found)
        self.expect_comments(what)
        counted = Counter(found["log"])
        lost = self.tokens - set(counted)
        twice = [token for token, number in counted.items() if number > 1]
        counted.pop("begin", None)
        self.trial.expect(not lost, f"{what}: acknowledged commits are lost: {sorted(lost)[:20]}")
        self.trial.expect(not twice, f"{what}: commits were made twice: {twice[:20]}")
        foreign = set(counted) - self.tokens
        self.trial.expect(not foreign, f"{what}: refused commits are visible: {sorted(foreign)[:20]}")
        for name, k in self.acknowledged.items():
            self.trial.expect(found[name]["n"] == k, f"{what}: {name} acknowledged {k}, the file says {found[name]}")
        value, began = self.saved_both
        overridden = {program for program, ended in self.both if ended < began}
        self.trial.expect(
            not value or found["both"] not in overridden,
            f"{what}: the person's {value!r} lost against {found['both']!r}, which was in the file before the save",
        )
        for writer in self.writers:
            writer.tell("look")
        for writer in self.writers:
            snapshot = writer.hear()
            self.trial.expect(
                same(snapshot, found),
                f"{what}: {writer.name} reads {str(snapshot)[:300]}, the file says {str(found)[:300]}",
            )
        self.trial.count("saves")
        if self.dice.random() < 0.2:
            self.trial.count("closes")
            self.order(self.dice.choice(self.writers), "reopen")
            self.finish_work()

    def expect_edit(self, what: str, found: dict[Any, Any]) -> None:
        self.trial.expect(
            found.get("note") == self.note, f"{what}: the file has the note {found.get('note')!r}, not {self.note!r}"
        )

    def expect_comments(self, what: str) -> None:
        document = f.scan(self.path.read_bytes()).base.decode()
        problems = self.comments.problems(document)
        self.trial.expect(not problems, f"{what}: {'; '.join(problems)} in\n{document}")
        self.trial.count("checks of a comment", len(self.comments))

    def is_in_conflict(self) -> bool:
        return self.told_of_conflict or any(self.path.parent.glob(f"{self.path.name}.conflict-*"))

    def judge_conflict(self, what: str) -> None:
        """The edit is in the file, and every commit is in it, or in a file beside it."""
        found = read_fresh(self.path)
        self.expect_edit(what, found)
        self.expect_comments(what)
        self.expect_commits(what, set(found.get("log", ())))
        self.trial.count("conflicts reported")

    def judge_refusal(self, what: str) -> None:
        """The edit is in the file, above a journal that is unknown by now; a close keeps our side beside it."""
        content = self.path.read_bytes()
        self.trial.expect(
            f"\nnote: {self.note}".encode() in b"\n" + content, f"{what}: refused, and the file has not got the edit"
        )
        self.end_all()
        self.trial.expect(self.path.read_bytes() == content, f"{what}: refused, and then overwritten by a close")
        self.expect_commits(what, set())
        self.trial.count("refused edits of unknown documents")

    def expect_commits(self, what: str, known: set[str]) -> None:
        """All that were acknowledged are *known*, or in a file beside."""
        conflicts = list(self.path.parent.glob(f"{self.path.name}.conflict-*"))
        for each in conflicts:
            known |= set(read_fresh(each).get("log", ()))
        lost = self.tokens - known
        self.trial.expect(not lost, f"{what}: commits in none of {len(conflicts)} conflict files: {sorted(lost)[:20]}")

    def end_all(self) -> None:
        for writer in self.writers:
            writer.tell("close")
        for writer in self.writers:
            if not isinstance(writer.hear(), Ended):
                raise BrokenPromise(f"{writer} does not end")
            writer.join()

    def close(self) -> None:
        self.end_all()
        state = read_fresh(self.path)
        self.expect_edit("at the end", state)
        self.expect_comments("at the end")
        if f.scan(self.path.read_bytes()).marker is not None:
            raise BrokenPromise("P1: after a clean close there is a journal")
        found = yaml.load(self.path.read_bytes(), LOADER)
        self.trial.expect(same(found, state), f"at the end: a stock loader reads {found}, the state said {state}")
        ours = [name for name in os.listdir(self.path.parent) if re.fullmatch(r"\..*\.(vacuum|swap)|.*\.cut-.*", name)]
        self.trial.expect(not ours, f"P1: after a clean close there is {', '.join(ours)}")


@check("edits", "While programs write, no editor loses a save, and no save loses an acknowledged commit.", share=2)
def edits(trial: Trial) -> None:
    editors = [editor for editor in EDITORS if editor.installed]
    if missing := [editor.name for editor in EDITORS if not editor.installed]:
        trial.figures["not installed"] = ", ".join(missing)
    trial.random.shuffle(editors)
    turn = 0
    with logged(trial.folder):
        while trial.goes_on():
            folder = trial.folder / f"round{trial.counts['rounds']}"
            folder.mkdir()
            path = folder / "state.yaml"
            with Crew(trial) as crew:
                one = Round(trial, crew, path)
                for _ in range(SAVES_PER_ROUND):
                    editor = editors[turn % len(editors)]
                    turn += 1
                    what = f"a save ({editor.name})"
                    try:
                        if not one.save(editor):
                            break
                        one.judge(what)
                    except Conflict:
                        break
                    except (BrokenPromise, StateFileError) as error:
                        (trial.folder / "schedule.txt").write_text("\n".join(one.steps) + "\n")
                        raise BrokenPromise(
                            f"{error}" if str(error).startswith(what) else f"{what}: {error}"
                        ) from error
                    if not trial.goes_on():
                        one.close()
                        break
                else:
                    one.close()
            trial.count("rounds")
            shutil.rmtree(folder)
