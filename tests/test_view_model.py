"""What `pstate view` shows, without a terminal: the tree follows exactly, marks stay with what they are of."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pstate import PersistedState
from pstate.cli.view import editing, looks
from pstate.cli.view.filtering import MOST
from pstate.cli.view.following import Feed, Follower, News
from pstate.cli.view.model import MARKED, Model
from pstate.cli.view.timeline import EACH, LINES
from pstate.memory import ops
from pstate.memory.changes import Change, grown
from pstate.text import reading
from pstate.values import same

PATIENCE = 20.0


class Followed:
    """A state, and a model that follows it from the beginning of its journal, as the view does."""

    def __init__(self, path: Path, content: str = "{}\n", place: list[Any] | None = None) -> None:
        path.write_text(content, encoding="utf-8")
        self.path = path
        self.writer = PersistedState.open(path)
        self.state = PersistedState.open(path, read_only=True)
        self.feed = Feed(self.state)
        self.model = Model(grown(self.feed.document), place or [], path.name)
        self.catch_up()

    def catch_up(self) -> None:
        for news in self.feed.news():
            self.model.follow(news)

    def close(self) -> None:
        self.feed.close()
        self.state.close()
        self.writer.close()

    def rows(self) -> list[str]:
        """The tree as text, two blanks for each level, and the mark after it."""
        found = []
        for number in range(self.model.count):
            row = self.model.row(number)
            mark = f"  ({row.mark.sign} {row.mark.origin})" if row.mark is not None else ""
            found.append("  " * row.depth + f"{row.label}: {row.text}{mark}")
        return found


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Callable[..., Followed]]:
    made: list[Followed] = []

    def make(content: str = "{}\n", place: list[Any] | None = None) -> Followed:
        made.append(Followed(tmp_path / "state.yaml", content, place))
        return made[-1]

    yield make
    for each in made:
        each.close()


def naive(model: Model, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The rows from *path* on, the slow way."""
    yield path
    value, spot = model.value(path), model._spots.find(path)
    if spot is None or not spot.is_open or not isinstance(value, dict | list | set):
        return
    if isinstance(value, set):
        keys = looks.members(value)
    else:
        keys = list(dict.keys(value)) if isinstance(value, dict) else list(range(list.__len__(value)))
    for key in keys:
        yield from naive(model, (*path, key))


# ------------------------------------------------------------------ the tree


def test_it_begins_with_the_state_closed_but_for_the_top(followed: Callable[..., Followed]) -> None:
    view = followed("counter: 3\njobs:\n  - {name: wash, tries: 0}\nseen: !!set {a: null}\nnothing: {}\n")

    assert [
        "state.yaml: 4 keys",
        "  counter: 3",
        '  jobs: [{name: "wash", tries: 0}]',
        '  seen: {"a"}',
        "  nothing: 0 keys",
    ] == view.rows()


def test_what_has_changed_is_marked_with_who_has_done_it(followed: Callable[..., Followed]) -> None:
    """And what is closed has the mark of what is in it."""
    view = followed("counter: 3\njobs: [{name: wash, tries: 0}]\n")
    view.writer.jobs[0].tries = 1
    view.writer.new = True
    view.catch_up()

    assert [
        "state.yaml: 3 keys",
        "  counter: 3",
        '  jobs: [{name: "wash", tries: 1}]  (~ other)',
        "  new: true  (+ other)",
    ] == view.rows()
    del view.writer["new"]
    view.catch_up()
    assert "state.yaml: 2 keys  (- other)" == view.rows()[0]


def test_an_edit_is_told_apart_from_a_commit(followed: Callable[..., Followed]) -> None:
    view = followed("counter: 3\nother: 1\n")
    view.path.write_text("counter: 4\nother: 1\n")
    deadline = time.monotonic() + PATIENCE
    while view.model.edits == 0:
        view.catch_up()
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert ["state.yaml: 2 keys", "  counter: 4  (~ edit)", "  other: 1"] == view.rows()
    assert [(1, 0)] == [(view.model.edits, view.model.commits)]


def test_marks_open_rows_and_the_cursor_stay_with_an_element_that_moves(followed: Callable[..., Followed]) -> None:
    """Nobody may be told that somebody has changed what he has not."""
    view = followed("jobs: [{n: 0}, {n: 1}, {n: 2}, {n: 3}]\n")
    model = view.model
    assert model.show(("jobs", 2, "n"))
    view.writer.jobs[2].n = 20
    view.writer.jobs.pop(0)
    view.catch_up()

    assert ("jobs", 1, "n") == model.cursor.path
    assert ["    0: {n: 1}", "    1: 1 key", "      n: 20  (~ other)", "    2: {n: 3}"] == view.rows()[2:]
    with view.writer.transaction():
        view.writer.jobs.insert(0, {"n": "new"})
        view.writer.jobs[0:0] = [{"n": "a"}, {"n": "b"}]
        view.writer.jobs.reverse()
    view.catch_up()
    assert 20 == model.value(model.cursor.path)
    del view.writer.jobs[model.cursor.path[1]]
    view.catch_up()
    assert model.cursor.is_gone
    assert 0 <= model.cursor_row < model.count
    assert not model.cursor.is_gone


def test_two_deletions_in_one_commit_are_not_mistaken_for_one_slice(followed: Callable[..., Followed]) -> None:
    """Both are told with the same two indices."""
    for delete in (lambda jobs: (jobs.pop(1), jobs.pop(2)), lambda jobs: jobs.__delitem__(slice(1, 3))):
        view = followed("jobs: [a, b, b, c, b]\n")
        with view.writer.transaction():
            delete(view.writer.jobs)
        view.catch_up()
        assert view.writer.jobs == ops.plain(view.model.root)["jobs"]


@pytest.mark.parametrize("seed", range(12))
def test_after_any_changes_the_rows_are_those_of_the_state(followed: Callable[..., Followed], seed: int) -> None:
    """The numbers of rows are kept up to date by little; here they are counted again."""
    chance = random.Random(seed)
    view = followed("a: {}\nb: []\nc: {d: [1, [2, 3], {e: 4}]}\n")
    model, writer = view.model, view.writer
    for step in range(150):
        containers = [writer]
        for container in containers:
            inside = container.values() if isinstance(container, dict) else container
            containers += [each for each in inside if isinstance(each, dict | list)]
        node = chance.choice(containers[:40])
        value = chance.choice([step, "text", [1, {"x": step}], {"y": [step]}, {1, 2}])
        with writer.transaction():
            for _ in range(chance.choice((1, 1, 3))):
                change(chance, node, value)
        if chance.random() < 0.1:
            writer.vacuum()
        if chance.random() < 0.5:
            view.catch_up()
            model.move_to(chance.randrange(model.count))
            chance.choice([model.toggle, model.step_in, model.step_out])()
            assert writer.snapshot() == ops.plain(model.root)
            expected = list(naive(model, ()))
            assert expected == [model.path(number) for number in range(model.count)]
            assert list(range(model.count)) == [model.number(path) for path in expected]
            assert model.cursor_row == expected.index(model.cursor.path)
            for number in range(model.count):
                model.row(number)


def change(chance: random.Random, node: Any, value: Any) -> None:
    if isinstance(node, dict):
        key = chance.choice("abcdefgh")
        if key in node and chance.random() < 0.4:
            del node[key]
        else:
            node[key] = value
        return
    number = chance.randrange(len(node) + 1)
    what = chance.randrange(6)
    if what == 0:
        node.insert(number, value)
    elif what == 1 and node:
        node.pop(chance.randrange(len(node)))
    elif what == 2:
        node[number : number + chance.randrange(3)] = [value] * chance.randrange(3)
    elif what == 3:
        node.reverse()
    elif what == 4 and node:
        node[chance.randrange(len(node))] = value
    else:
        node.append(value)


def test_what_came_before_the_view_is_in_the_time_line_and_not_marked(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    with PersistedState(path, n=0) as writer:
        writer.n = 1
        writer.n = 2
        state = PersistedState.open(path, read_only=True)
        feed = Feed(state)
        model = Model(grown(feed.document), [], "state.yaml")
        for news in feed.news():
            model.follow(news)

        assert {"n": 2} == ops.plain(model.root)
        assert [None, None] == [model.row(number).mark for number in range(2)]
        lines = [model.timeline.line(number) for number in range(model.timeline.end)]
        assert [(1, "+", "0"), (2, "~", "0 -> 1"), (3, "~", "1 -> 2")] == [
            (line.number, line.sign, line.words) for line in lines
        ]
        assert 0 == model.commits
        feed.close()
        state.close()


def test_a_place_in_the_state_is_followed_wherever_it_is(followed: Callable[..., Followed]) -> None:
    view = followed("jobs: [a, b]\nother: 1\n", ["jobs", -1])
    assert ['jobs[-1]: "b"'] == view.rows()
    view.writer.jobs.append("c")
    view.writer.other = 2
    view.catch_up()
    assert ['jobs[-1]: "c"  (+ other)'] == view.rows()
    assert 1 == view.model.timeline.end  # the change elsewhere is not in it
    view.writer.jobs.clear()
    view.catch_up()
    assert ["jobs[-1]: nothing is here now"] == view.rows()
    view.writer.jobs = {"x": 1}
    view.writer.jobs = [[7]]
    view.catch_up()
    assert "jobs[-1]: [7]" == view.rows()[0].partition("  (")[0]


def test_a_large_commit_is_marked_at_its_container(followed: Callable[..., Followed]) -> None:
    view = followed("many: {}\n")
    with view.writer.transaction():
        for number in range(MARKED + 1):
            view.writer.many[f"k{number}"] = number
    view.writer.list = []
    view.catch_up()
    before = time.perf_counter()
    view.writer.list.extend(range(50_000))
    view.catch_up()

    spot = view.model._spots.find(("list",))
    assert spot is not None
    assert spot.mark is not None
    assert not spot.children
    assert time.perf_counter() - before < PATIENCE
    last = view.model.timeline.line(view.model.timeline.end - 1)
    assert f"… {50_000 - EACH:,} more" == last.words


# ------------------------------------------------------------------ many, and fast


def test_opening_a_large_mapping_looks_at_no_value(followed: Callable[..., Followed]) -> None:
    """Spots are made for what a person has been at, not for what there is."""
    view = followed("".join(f"key{number}: {{a: 1, b: 2}}\n" for number in range(20_000)))
    model = view.model
    assert 20_001 == model.count
    model.move_to(10_000)
    model.toggle()

    assert 20_003 == model.count
    assert ("key9999", "b") == model.path(10_002)
    assert 2 == len(model._spots.children) + 1
    assert 20_002 == model.number(("key19999",))


def test_a_change_keeps_what_is_known_of_the_other_rows(followed: Callable[..., Followed]) -> None:
    view = followed("".join(f"key{number}: 1\n" for number in range(5_000)))
    model = view.model
    assert 5_001 == model.count
    keys = model._spots._keys
    view.writer.key7 = 2
    view.writer.new = 1
    view.catch_up()

    assert keys is model._spots._keys
    assert ("new",) == model.path(5_001)


def test_when_too_much_waits_the_state_is_told_instead(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    with PersistedState(path, n=0) as writer:
        follower = Follower(PersistedState.open(path, read_only=True), str(path), most=10)
        model = Model(follower.document, [], "state.yaml")
        for number in range(1, 101):
            writer.n = number
        assert "" == follower._look()
        assert 1 == len(follower.news)
        model.follow(follower.news.popleft())

        assert {"n": 100} == ops.plain(model.root)
        assert (100, 0) == (model.commits, model.edits)  # the one that began the journal came before the view
        assert "came too fast" in model.timeline.line(model.timeline.end - 1).words
        mark = model.row(1).mark
        assert mark is not None
        assert ("~", "other", model.commits) == (mark.sign, mark.origin, mark.count)
        writer.n = -1
        assert "" == follower._look()
        model.follow(follower.news.popleft())
        assert {"n": -1} == ops.plain(model.root)
        follower.end()
        assert not follower.is_alive()


def test_what_is_skipped_is_counted_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_text("n: 0\n")
    with PersistedState(path) as writer:
        writer.n = 1
        writer.n = 2
        follower = Follower(PersistedState.open(path, read_only=True), str(path), most=0)
        model = Model(follower.document, [], "state.yaml")

        def look() -> tuple[int, int]:
            assert "" == follower._look()
            while follower.news:
                model.follow(follower.news.popleft())
            return model.commits, model.edits

        assert (0, 0) == look()
        writer.n = 3
        writer.vacuum()
        assert (1, 0) == look()
        save = path.with_name("new")
        save.write_text("n: 4\n")
        os.replace(save, path)
        awaited(lambda: look() == (1, 1))
        assert "commits and edits" in model.timeline.line(model.timeline.end - 1).words
        assert {"n": 4} == ops.plain(model.root)
        follower.end()


def test_nothing_is_counted_twice_that_is_taken_while_it_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_text("n: 0\n")
    with PersistedState(path) as writer:
        follower = Follower(PersistedState.open(path, read_only=True), str(path))
        model = Model(follower.document, [], "state.yaml")
        for number in range(1, 101):
            writer.n = number
        assert "" == follower._look()
        state_now = follower._feed.state_now

        def taken_meanwhile() -> Any:
            model.follow(taken)
            return state_now()

        class Waiting(deque[News]):
            """Another thread takes the oldest after the first one is taken."""

            def pop(self) -> News:  # type: ignore[override]
                nonlocal taken
                if taken is None:
                    taken = self.popleft()
                return super().pop()

        taken: Any = None
        follower.news = Waiting(follower.news)
        follower._feed.state_now = taken_meanwhile  # type: ignore[method-assign]
        follower._skip()
        model.follow(follower.news.popleft())

        assert 100 == model.commits
        assert {"n": 100} == ops.plain(model.root)
        follower.end()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_save_that_changes_no_value_is_not_counted(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "state.yaml"
    path.write_text("n: 0\n")
    follower = Follower(PersistedState.open(path, read_only=read_only), str(path))
    model = Model(follower.document, [], "state.yaml")
    for content in ("n: 0  # a comment\n", "n: 1\n"):
        save = path.with_name("new")
        save.write_text(content)
        os.replace(save, path)

        def has_come() -> bool:
            assert "" == follower._look()
            return bool(follower.news)

        awaited(has_come)
        while follower.news:
            model.follow(follower.news.popleft())

    assert (0, 1) == (model.commits, model.edits)
    follower.end()


def test_the_time_line_keeps_so_many_lines(followed: Callable[..., Followed]) -> None:
    view = followed("n: 0\n")
    for number in range(LINES + 10):
        view.model.timeline.say(0.0, str(number))

    assert (10, LINES + 10) == (view.model.timeline.begin, view.model.timeline.end)
    assert "10" == view.model.timeline.line(10).words


# ------------------------------------------------------------------ the filter


def found(view: Followed, text: str) -> list[str]:
    view.model.look_for(text)
    deadline = time.monotonic() + PATIENCE
    while view.model.filter is not None and not view.model.filter.is_done:
        view.model.look_on()
        assert time.monotonic() < deadline
    return [looks.place(view.model.path(number)) for number in range(1, view.model.count)]


def test_the_filter_looks_in_paths_and_values_for_all_words(followed: Callable[..., Followed]) -> None:
    view = followed("jobs:\n  - {name: Wash, tries: 0}\n  - {name: dry, tries: 7}\nlimits: {wash: 7}\n")

    assert ["jobs", "jobs[0]", "jobs[0].name", "limits", "limits.wash"] == found(view, "wash")
    assert ["jobs", "jobs[1]", "jobs[1].tries"] == found(view, "7 JOBS")
    assert ["limits", "limits.wash"] == found(view, "limits")  # what is in it, too
    assert [] == found(view, "nowhere")
    assert ["jobs", "limits"] == found(view, "")


def test_the_filter_follows_what_comes(followed: Callable[..., Followed]) -> None:
    view = followed("a: 1\nb: 2\n")
    assert ["a"] == found(view, "1")
    view.writer.b = 1
    view.writer.c = {"d": 1}
    del view.writer["a"]
    view.catch_up()
    deadline = time.monotonic() + PATIENCE
    while ["b", "c", "c.d"] != [looks.place(view.model.path(n)) for n in range(1, view.model.count)]:
        view.model.look_on()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_change_that_makes_no_difference_to_the_filter_begins_no_search(followed: Callable[..., Followed]) -> None:
    view = followed("counter: 1\nother: 1\n")
    found(view, "counter")
    assert view.model.filter is not None
    for _ in range(10):
        view.writer.counter += 1
        view.writer.other += 1
    view.catch_up()

    assert not view.model.filter._is_stale


def test_the_filter_shows_so_many_rows(followed: Callable[..., Followed]) -> None:
    view = followed("".join(f"key{number}: 1\n" for number in range(MOST + 5)))

    assert MOST <= len(found(view, "key")) <= MOST + 1
    assert view.model.filter is not None
    assert view.model.filter.is_cut


def test_the_filter_looks_for_a_moment_at_a_time(followed: Callable[..., Followed]) -> None:
    view = followed("".join(f"key{number}: 1\n" for number in range(20_000)))
    view.model.look_for("nowhere")
    assert view.model.filter is not None
    steps = 0
    while not view.model.filter.is_done:
        view.model.filter.step(view.model.root, 0.001)
        steps += 1
    assert steps > 3


# ------------------------------------------------------------------ one safe line

NASTY = [
    "[red]markup[/red]",
    "\x1b[2J\x07bell\x00",
    "\u202eright to left\u2066 and \u200e",
    "family 👨\u200d👩\u200d👧 and flags 🇩🇪",
    "two\nlines\r\n\ttab",
    "\u2028\u2029\ufeff\ue000\U000e0041",
    "wide 漢字 and e\u0301",
    "a" * 5_000,
    "'\"\\",
]


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_no_character_of_a_value_moves_anything_and_an_edit_gives_it_back(text: str) -> None:
    state = {text[:60]: text, "list": [text, {text[:60]: 1}], "set": {text[:60]}}
    for value in (text, state):
        shown = looks.brief(value)
        assert shown == looks.safe(shown)
        assert not any(character in shown for character in "\x1b\x00\x07\n\r\t\u202e\u2066\u200d\u2028\ufeff\ue000")
        assert len(shown) <= looks.LONGEST
        whole = looks.whole(value)
        if whole is not None:
            assert whole == looks.safe(whole)
            assert same(value, editing.read(whole).value)
    assert looks.place((text,)) == looks.safe(looks.place((text,)))


@pytest.mark.parametrize(
    "value",
    [10**5_000, b"\xff" * 100_000, list(range(100_000)), set(range(100_000)), {}, None, -0.0],
    ids=["integer", "bytes", "list", "set", "empty", "null", "zero"],
)
def test_a_line_of_a_huge_value_is_made_of_little_of_it(value: Any) -> None:
    before = time.process_time()
    shown = looks.brief(value)
    assert time.process_time() - before < 1
    assert 0 < len(shown) <= looks.LONGEST


def test_what_is_too_long_for_one_line_is_not_edited_in_one() -> None:
    assert looks.whole("x" * 20_000) is None
    assert looks.whole({"a": ["x" * 9_000, "y" * 2_000]}) is None
    assert looks.whole(list(range(10_000))) is None
    assert looks.whole(10**20_000) is None
    assert "[1,2]" == looks.whole([1, 2])


# ------------------------------------------------------------------ edits


class Arguments:
    def __init__(self, path: Path, lock_timeout: float = 10.0) -> None:
        self.file, self.durability, self.lock_timeout, self.locking = str(path), None, lock_timeout, "file"


def test_an_edit_is_one_commit_and_leaves_the_file_plain(followed: Callable[..., Followed], tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text("a: 1  # mine\nb: 2\n")
    outcome = editing.commit(Arguments(path), ("a",), 1, {"x": [True]})
    assert 1 == outcome.number

    assert (True, "a is {x: [true]} now") == outcome[:2]
    assert {"a": {"x": [True]}, "b": 2} == reading.load(path.read_bytes(), "").value
    assert b"pstate" not in path.read_bytes()


def test_an_edit_does_not_overwrite_what_another_has_committed(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    with PersistedState(path, n=1, jobs=["a"], flag=True) as state:
        state.n = 2
        outcome = editing.commit(Arguments(path), ("n",), 1, 10)
        assert (False, "n is 2 by now. Nothing was changed.", 2) == outcome[:3]
        assert 2 == state.n
        # 1 and true are equal for Python.
        assert not editing.commit(Arguments(path), ("flag",), 1, 10).is_done
        state.jobs.clear()
        assert "no longer exists" in editing.commit(Arguments(path), ("jobs", 0), "a", "b").words
        del state["jobs"]
        assert "no longer exists" in editing.commit(Arguments(path), ("jobs", 0), "a", "b").words
        assert {"n": 2, "flag": True} == state.snapshot()


@pytest.mark.parametrize("is_early", [True, False])
def test_an_edit_of_ours_is_marked_as_ours(followed: Callable[..., Followed], is_early: bool) -> None:
    """Whether the view hears of the commit first or of its end; and the same change by another program is not ours."""
    view = followed("n: 1\nother: 1\n")
    for number in (2, 3):
        view.writer.n = number
    outcome = editing.commit(Arguments(view.path), ("n",), 3, 4)
    assert outcome.is_done
    if is_early:
        view.model.claim(outcome.number, ("n",), 4)
        view.catch_up()
    else:
        view.catch_up()
        view.model.claim(outcome.number, ("n",), 4)

    assert "  n: 4  (~ here)" == view.rows()[1]
    timeline = view.model.timeline
    assert ["other", "other", "here"] == [timeline.line(line).origin for line in range(timeline.end)]
    view.writer.n = 3
    view.writer.n = 4
    view.catch_up()
    assert "  n: 4  (~ other)" == view.rows()[1]


@pytest.mark.parametrize("is_early", [True, False])
def test_an_edit_of_ours_is_marked_as_ours_where_the_journal_has_gone_too_soon(
    followed: Callable[..., Followed], is_early: bool
) -> None:
    """Then it comes as a part of what the state has become, without a number."""
    view = followed("n: 1\nm: 1\n")
    model = view.model
    if is_early:
        model.claim(7, ("n",), 2)
    changes = [Change((key,), 1, 2, "other") for key in "nm"]
    model.follow(News(time.time(), "other", None, changes, [], grown({"n": 2, "m": 2})))
    if not is_early:
        model.claim(7, ("n",), 2)

    assert ["  n: 2  (~ here)", "  m: 2  (~ other)"] == view.rows()[1:]


def test_an_edit_that_waits_too_long_for_a_writer_says_so(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = PersistedState(path, n=1)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with state.transaction():
            entered.set()
            leave.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(PATIENCE)
    try:
        saving = editing.Saving(Arguments(path, 0.2), ("n",), 1, 2)
        saving.start()
        saving.join(PATIENCE)
        assert saving.failure is None
        assert saving.outcome is not None
        assert not saving.outcome.is_done
        assert "--lock-timeout" in saving.outcome.words or "0.2" in saving.outcome.words
    finally:
        leave.set()
        thread.join()
    assert 1 == state.n
    state.close()


def test_what_is_typed_is_read_as_pstate_set_reads_it() -> None:
    assert (7, "") == editing.read("7")[:2]
    assert "string" in editing.read("wash").remark
    assert "int 750" == editing.read("12:30").remark  # which the person sees before the commit
    assert "boolean false" == editing.read("no").remark
    for wrong in ("", "[1, 2", "{a: 1", '"', "a: b: c", "*y"):
        problem = editing.read(wrong).problem
        assert problem
        assert "\n" not in problem
        assert "Nothing was" not in problem


def test_an_edit_of_a_file_that_is_gone_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    outcome = editing.commit(Arguments(path), ("n",), 1, 2)
    assert not outcome.is_done
    assert "the file does not exist" in outcome.words
    assert not path.exists()


# ------------------------------------------------------------------ the file


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    path = tmp_path / "state.yaml"
    path.write_text("n: 1\nlist: [1, 2]\n")
    follower = Follower(PersistedState.open(path, read_only=True), str(path))
    follower.start()
    yield follower
    follower.end()
    assert follower.failure is None
    assert not follower.is_alive()


def awaited(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_file_that_is_deleted_broken_and_put_back_is_told(follower: Follower, tmp_path: Path) -> None:
    path, model = tmp_path / "state.yaml", Model(follower.document, [], "state.yaml")

    def value() -> Any:
        while follower.news:
            model.follow(follower.news.popleft())
        return ops.plain(model.root)

    path.unlink()
    awaited(lambda: "deleted" in follower.trouble)
    path.write_text("n: 2\n")
    awaited(lambda: value() == {"n": 2} and not follower.trouble)
    path.write_text("n: [2\n")
    awaited(lambda: "not YAML" in follower.trouble)
    assert {"n": 2} == value()
    path.write_text("n: 3\n")
    awaited(lambda: value() == {"n": 3} and not follower.trouble)
    path.unlink()
    path.mkdir()
    awaited(lambda: "directory" in follower.trouble)
    path.rmdir()
    with PersistedState(path, n=4) as state:
        awaited(lambda: value() == {"n": 4} and not follower.trouble)
        state.vacuum()
        state.n = 5
        state.vacuum()
        awaited(lambda: value() == {"n": 5})


def test_damage_that_no_read_notices_is_told(follower: Follower, tmp_path: Path) -> None:
    """A program that has read a record does not read it again; the next one that opens the file would."""
    path = tmp_path / "state.yaml"
    with PersistedState(path) as state:
        state.n = 2
        state.n = 3
        awaited(lambda: len(follower.news) == 2)
        good = path.read_bytes()
        with path.open("r+b") as file:
            file.seek(good.index(b'"n",2'))
            file.write(b'"n",7')
        awaited(lambda: "state.yaml" in follower.trouble)
        with path.open("r+b") as file:
            file.write(good)
        awaited(lambda: not follower.trouble)
