"""How states and containers look in `pprint`, IPython, rich and Jupyter: like the builtin kinds, also when closed."""

from __future__ import annotations

import pprint
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.pretty import pretty_repr

from pstate import PersistedState
from pstate.memory import showing
from pstate.testing import SimulatedDisk, SimulatedSystem

CONTENT = {
    "jobs": [{"name": "wash" * 10, "tries": 3, "at": {"room": "kitchen" * 4}}, {"name": "dry"}],
    "empty": {},
    "nothing": [],
    "seen": {"a" * 30, "b" * 30, 7},
    "n": 1,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.yaml"


@pytest.fixture
def state(path: Path) -> Iterator[Any]:
    with PersistedState.open(path, defaults=CONTENT) as state:
        yield state


def nodes(state: Any) -> list[Any]:
    return [state, state.jobs, state.jobs[0], state.jobs[0].at, state.empty, state.nothing, state.seen]


# ------------------------------------------------------------------ pprint

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=30), st.binary(max_size=30))
keys = st.one_of(st.text(max_size=8), st.integers(), st.none())
trees = st.recursive(
    scalars | st.sets(keys, max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=25,
)


@given(
    content=st.dictionaries(keys, trees, max_size=5),
    options=st.fixed_dictionaries(
        {
            "width": st.integers(1, 100),
            "indent": st.integers(1, 4),
            "depth": st.none() | st.integers(1, 4),
            "compact": st.booleans(),
            "sort_dicts": st.booleans(),
            "underscore_numbers": st.booleans(),
        }
    ),
)
def test_pprint_writes_what_it_writes_for_the_builtin_kinds(content: dict[Any, Any], options: dict[str, Any]) -> None:
    fs = SimulatedSystem(SimulatedDisk())
    with PersistedState.open("/state.yaml", defaults=content, fs=fs) as state:
        assert pprint.pformat(state.snapshot(), **options) == pprint.pformat(state, **options)
        for key, value in state.snapshot().items():
            assert pprint.pformat([value, {1: value}], **options) == pprint.pformat(
                [state[key], {1: state[key]}], **options
            )


def test_pprint_breaks_lines(state: Any) -> None:
    """Its table of kinds is its own, so a new Python could have another one."""
    for node in nodes(state):
        assert pprint.pformat(node.copy()) == pprint.pformat(node)
        assert pprint.saferepr(node.copy()) == pprint.saferepr(node)
    assert 7 <= len(pprint.pformat(state).splitlines())
    assert repr(state.snapshot()) == repr(state)


def test_a_repr_of_a_subclass_is_its_own(path: Path) -> None:
    class App(PersistedState):
        def __repr__(self) -> str:
            return f"App {super().__repr__()}"

    with App(path, text="x" * 100, a=1) as app:
        assert f"App {{'text': '{'x' * 100}', 'a': 1}}" == pprint.pformat(app)


# ------------------------------------------------------------------ IPython, rich and Jupyter


class Printer:
    """What IPython passes to `_repr_pretty_`."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def pretty(self, value: Any) -> None:
        self.shown.append((type(value), value))

    def text(self, text: str) -> None:
        self.shown.append(text)


def in_ipython(node: Any) -> list[Any]:
    printer = Printer()
    node._repr_pretty_(printer, False)
    return printer.shown


def printed_by_rich(node: Any) -> str:
    console = Console(width=1000, color_system=None)
    with console.capture() as capture:
        console.print(node)
    return capture.get()


def test_ipython_shows_the_builtin_kind(state: Any) -> None:
    for node in nodes(state):
        plain = node.copy()
        assert [(type(plain), plain)] == in_ipython(node)


def test_rich_shows_the_builtin_kind_in_its_class(state: Any) -> None:
    for node in nodes(state):
        shown = pretty_repr(node, max_width=60)
        assert shown.startswith(f"{type(node).__name__}(")
        assert pretty_repr(node, max_width=1000) == printed_by_rich(node).rstrip("\n")
        assert node.copy() == eval(shown, {type(node).__name__: lambda plain: plain})
    assert 10 <= len(pretty_repr(state, max_width=60).splitlines())


class Reader(HTMLParser):
    """Reads HTML, and notes what is opened and never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def read(node: Any) -> Reader:
    reader = Reader(node._repr_html_())
    assert not reader.open
    assert reader.tags <= {"details", "summary", "ul", "li", "b", "code", "small"}
    return reader


def test_jupyter_shows_a_tree(state: Any) -> None:
    text = read(state).text

    assert text.startswith("PersistedState dict, 5 in it")
    for part in ("jobs list, 2 in it", "name: 'dry'", "room: 'kitchen", "empty dict, 0 in it", "n: 1", "seen set, 3"):
        assert part in text
    assert read(state.seen).text.startswith("MappedSet set, 3 in it7'aaa")


def test_what_looks_like_html_is_text(path: Path) -> None:
    evil = "<script>alert('&amp;')</script>"
    with PersistedState.open(path, defaults={evil: evil, "l": [evil], "s": {evil}, "d": {evil: {}}}) as state:
        assert 5 <= read(state).text.count(evil)


def test_a_large_state_is_cut(path: Path) -> None:
    rows = [{"text": "x" * 1000, "numbers": [*range(200)]} for _ in range(300)]
    with PersistedState.open(path, defaults={"rows": rows, "last": 10**5000}) as state:
        page = state._repr_html_()
        text = read(state).text

    assert len(page) < 300_000
    assert text.count("x" * showing.LONG + "…") <= showing.EACH
    assert "… 100 more" in text  # of the numbers
    assert "x" * (showing.LONG + 1) not in text
    assert text.count("0x") <= 1


def test_as_deep_as_a_state_can_be(path: Path) -> None:
    value: Any = 1
    for _ in range(99):
        value = [value]
    with PersistedState(path, x=value) as state:
        assert 99 == read(state).text.count("list, 1 in it")
        assert pprint.pformat(state.snapshot()) == pprint.pformat(state)


# ------------------------------------------------------------------ closed


def test_what_is_closed_is_shown_as_that(path: Path) -> None:
    state: Any = PersistedState.open(path, defaults=CONTENT)
    held = nodes(state)
    state.close()

    for node in held:
        said = f"<{type(node).__name__} of {str(path)!r}, closed>"
        assert said == pprint.pformat(node) == pretty_repr(node)
        assert said == printed_by_rich(node).rstrip("\n")
        assert [said] == in_ipython(node)
        assert node._repr_html_() is None


def test_what_is_not_open_yet_is_shown_as_that(path: Path) -> None:
    class App(PersistedState):
        def __init__(self) -> None:
            assert "<App, not open>" == pprint.pformat(self) == pretty_repr(self)
            assert ["<App, not open>"] == in_ipython(self)
            assert self._repr_html_() is None
            super().__init__(path)

    App().close()


def test_a_subclass_may_show_itself_otherwise(path: Path) -> None:
    class App(PersistedState):
        def _repr_html_(self) -> str:
            return f"<b>{len(self)}</b>"

    with App(path, a=1) as app:
        assert "<b>1</b>" == app._repr_html_()
        assert {"a": 1} == app
