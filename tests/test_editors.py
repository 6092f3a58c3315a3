"""A person with a real editor, and processes that write: no comment, no edit and no commit is lost.

`test_edits` has the ways of saving as system calls, at chosen moments; here the editors themselves run, read a file
with comments, wait while processes commit, and save. The windows that docs/guarantees.md names are avoided by protocol,
not by luck: while an editor writes, only where the path shows nothing half-saved does anybody commit, nobody saves
before all have followed a vacuum, and each that has committed lives until the save was noticed.
"""

from __future__ import annotations

import io
import re
import shutil
from collections import Counter
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML
from tools.edits import World

from pstate import EditConflict
from pstate.file.format import scan
from stress.real.editors import EDITORS, Changes, Editor, Save, run

DOCUMENT = """\
# The robot; edit at will. Programs write here, too.

# seconds
interval: 5  # was 10
jobs:  # in this order
  - wash  # the dishes
  # only on Sundays
  - iron

# what the programs count
counters:
  a: 0  # the first
  b: 0
  c: 0
log:
  - begin
# nobody needs it
obsolete: 1  # goes soon

# not yet:
# colour: blue
"""

PERSON = ["-c", "user.name=a person", "-c", "user.email="]

#: What the person does, one save after the other.
EDITS: list[Changes] = [
    {"interval:": "# 5 was too fast\ninterval: 7  # was 5, was 10\n"},
    {"  - iron": "  - iron  # shirts, too\n", "# colour": "colour: red  # at last\n"},
    {
        "# nobody": "",
        "obsolete:": "limits:\n  # in percent\n  disk: 90\n  # of all cores\n  load: 50  # half\n",
        "# what": "# what the programs count; hands off\n",
    },
]

every_editor = pytest.mark.parametrize(
    "editor",
    [
        pytest.param(
            editor,
            id=editor.name,
            marks=pytest.mark.skipif(not editor.installed, reason=f"{editor.program} is not installed"),
        )
        for editor in EDITORS
    ],
)
one_and_three = pytest.mark.parametrize("count", [1, 3], ids=["one process", "three processes"])

WORK = """
done = 0
def work(name, times):
    global done
    for _ in range(times):
        with state.transaction():
            state.counters[name] += 1
            state.log.append(f"{name}{done + 1}")
        done += 1
"""


class Writers:
    """Processes that have the file open, by their names."""

    def __init__(self, world: World, names: str) -> None:
        self.peers = {name: world.peer() for name in names}
        self.done = dict.fromkeys(names, 0)  #: commits that they were told to make; a call that returns has made them
        for peer in self.peers.values():
            peer.run(WORK)

    def begin(self, times: int) -> None:
        """All commit so often, at the same time."""
        for name, peer in self.peers.items():
            peer.tell(f"work({name!r}, {times})")
            self.done[name] += times

    def finish(self) -> None:
        for peer in self.peers.values():
            while peer.waiting:
                peer.answer()

    def work(self, times: int) -> None:
        self.begin(times)
        self.finish()

    def settle(self) -> list[str | None]:
        """All follow the save, whose end a writer waits for; returns the conflict files that they were told of."""
        told = []
        for _ in range(2):  # what the last one brings together with its commits, the first one has not seen yet
            for peer in reversed(self.peers.values()):  # "a", which may have opened the file again, knows least
                try:
                    peer.run("with state.transaction(): pass")
                except EditConflict as error:
                    told.append(error.conflict_path)
        return told

    def expect_commits(self, states: list[Any]) -> None:
        """All commits are in one of the *states*, and in none twice."""
        logs = [Counter(state["log"]) for state in states]
        for name, done in self.done.items():
            for number in range(1, done + 1):
                assert any(log[f"{name}{number}"] for log in logs), f"{name}{number}"
            assert done in [state["counters"][name] for state in states]
        assert all(number == 1 for log in logs for number in log.values())


@pytest.fixture
def writers(world: World, count: int) -> Writers:
    world.write(DOCUMENT)
    return Writers(world, "abc"[:count])


def with_edits(text: str, edits: list[Changes]) -> str:
    """*text*, as the person has changed it."""
    for changes in edits:
        for line, lines in changes.items():
            found = re.search(rf"(?m)^{line}.*\n", text)
            assert found is not None, line
            text = text[: found.start()] + lines + text[found.end() :]
    return text


def expect_stock_loaders_to_read(world: World, state: Any) -> None:
    assert state == yaml.safe_load(world.content)
    assert state == YAML(typ="safe", pure=True).load(io.BytesIO(world.content))


def document(world: World) -> str:
    """What a person sees above the journal."""
    return scan(world.content).base.decode()


def without_values(text: str) -> str:
    """*text* without what the programs change."""
    return re.sub(r"(?m)^  - [a-c]\d+\n", "", re.sub(r"(?m)^(  [a-c]:) \d+", r"\1", text))


@every_editor
@one_and_three
def test_comments_edits_and_commits_are_all_there(world: World, writers: Writers, editor: Editor) -> None:
    """Processes commit before, while and after the editor has the file open; the person does that three times."""

    def commit() -> None:
        writers.work(5)
        if editor.at_once:
            writers.begin(200)  # beside the save

    for number, changes in enumerate(EDITS):
        writers.work(3)
        editor.save(Save(world.path, changes, commit))
        writers.finish()
        assert [] == writers.settle()
        if not number:
            writers.peers["a"].run("state.jobs.insert(1, 'dry')")
    state = world.finish()

    assert [] == world.conflicts()
    writers.expect_commits([state])
    expect_stock_loaders_to_read(world, state)
    expected = with_edits(DOCUMENT, EDITS).replace("the dishes\n", "the dishes\n  - dry\n")
    for name, done in writers.done.items():
        expected = expected.replace(f"  {name}: 0", f"  {name}: {done}")
    expected = expected.replace("  - begin\n", "".join(f"  - {token}\n" for token in state["log"]))
    assert expected == world.content.decode()


@every_editor
@pytest.mark.parametrize(
    ("count", "rewrite"),
    [
        pytest.param(1, "state.vacuum()", id="one process vacuums"),
        pytest.param(3, "state.vacuum()", id="one of three vacuums"),
        pytest.param(3, "state.close(); state = PersistedState.open(path)", id="one of three closes and opens"),
    ],
)
def test_a_copy_from_before_a_rewrite_loses_no_comment_and_no_commit(
    world: World, writers: Writers, editor: Editor, rewrite: str
) -> None:
    """The edit and its comments are in the file; the commits too, or else beside it, in a file that an error names."""

    def commit() -> None:
        writers.work(5)
        writers.peers["a"].run(f"path = {str(world.path)!r}; {rewrite}")
        world.all_agree()
        writers.work(5)
        world.all_agree()

    writers.work(3)
    editor.save(Save(world.path, EDITS[0], commit))
    told = writers.settle()
    state = world.finish()

    assert {str(path) for path in world.conflicts()} == set(told)
    writers.expect_commits([state, *(yaml.safe_load(path.read_bytes()) for path in world.conflicts())])
    expect_stock_loaders_to_read(world, state)
    assert without_values(with_edits(DOCUMENT, EDITS[:1])) == without_values(world.content.decode())


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@one_and_three
def test_git_stash_takes_an_edit_away_and_no_commit(world: World, count: int) -> None:
    """What it kept, with its journal, is a copy that was read then: put back, it gets what has changed since on top."""
    world.write(DOCUMENT)
    folder, name = world.path.parent, world.path.name
    run(["git", "init", "-q"], folder)
    run(["git", "add", name], folder)
    run(["git", *PERSON, "commit", "-q", "-m", "the robot"], folder)
    writers = Writers(world, "abc"[:count])
    edited = with_edits(DOCUMENT, EDITS[:1])
    world.path.write_text(edited)
    writers.work(3)

    run(["git", *PERSON, "stash", "-q"], folder)
    writers.work(3)
    assert [] == writers.settle()
    assert without_values(DOCUMENT) == without_values(document(world))
    writers.expect_commits([world.all_agree()])

    run(["git", "checkout", "-q", "stash@{0}", "--", name], folder)  # `stash pop` refuses: the file has changed
    writers.work(3)
    assert [] == writers.settle()
    state = world.finish()

    writers.expect_commits([state])
    assert without_values(edited).replace("interval: 7", "interval: 5") == without_values(world.content.decode())
