"""What comes of a state, heard in a thread of its own: commits and edits, and what is wrong with the file.

Everything that may wait is here: reads wait for the transactions of other threads, and large files take their time.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from pstate.cli.mending import unopened
from pstate.cli.urls import Url
from pstate.engine import Origin
from pstate.errors import PStateError, StateFileError
from pstate.memory import ops
from pstate.memory.changes import Change, grown
from pstate.memory.frames import store_of
from pstate.signals import expected
from pstate.state import PersistedState
from pstate.watch import Together, Watch

#: How often it is asked what has come, in seconds: as often as is shown.
_INTERVAL = 0.05
#: How long the file must have been left alone before its bytes are judged, in seconds; and how much of the time that
#: may cost.
_QUIET = 1.0
_COST = 50


#: An operation, and the changes that it makes.
Step = tuple[list[Any], list[Change]]


class News(NamedTuple):
    """One commit, or one edit, or all that was skipped."""

    time: float
    origin: Origin | None  #: None for values from before the view
    number: int | None  #: of the commit
    changes: list[Change]
    steps: list[Step]  #: of a commit: its operations, for the tree of who is told
    root: Any = None  #: a tree of its own that the state has become; of a difference
    commits: int = 0  #: how many commits since the view began this is, or stands for
    edits: int = 0  #: likewise, how many edits
    skipped: int = 0  #: how many it stands for, because they came too fast; *changes* has the last one of each place
    counts: dict[Any, int] = {}  # noqa: RUF012 - of those, where there was more than one

    @property
    def is_past(self) -> bool:
        """Whether it was committed before the view began."""
        return self.origin is None and self.number is not None

    @property
    def size(self) -> int:
        """How many commits and edits it is, or stands for. A difference without a change is neither."""
        return self.skipped or int(self.number is not None or bool(self.changes))


class Feed(Watch):
    """A watch that also tells the operations, from the last vacuum on, so that another tree can follow exactly."""

    def __init__(self, state: PersistedState) -> None:
        self._steps: list[Step] = []
        self._told: list[News] = []
        super().__init__(state, history=True)
        self.document = ops.plain(self._root)  #: the state that the first operation is for

    def news(self) -> Iterator[News]:
        """What has come since the last call. Raises as reading the state does; what was told before stays told."""
        try:
            self.commits()
        finally:
            told, self._told = self._told, []
            yield from told

    def state_now(self) -> Any:
        """The state after all that was told, as a tree of its own."""
        return grown(ops.plain(self._root))

    def _play(self, operation: list[Any]) -> list[Change]:
        found = super()._play(operation)
        self._steps.append((operation, found))
        return found

    def _news(self) -> Iterator[Together]:
        root, self._steps = self._root, []
        for origin, number, changes in super()._news():
            steps, self._steps = self._steps, []
            news = News(time.time(), origin, number, changes, steps)
            if self._root is not root:
                root = self._root
                news = news._replace(root=self.state_now())
            if not news.is_past:
                is_edit = origin == "edit"
                news = news._replace(commits=0 if is_edit else news.size, edits=news.size if is_edit else 0)
            self._told.append(news)
            yield origin, number, changes


class Follower(threading.Thread):
    """The thread. It closes the state when it ends, however that comes about."""

    def __init__(self, state: PersistedState, file: str, most: int = 20_000) -> None:
        super().__init__(name="pstate view", daemon=True)
        self._state = state
        self._file = file
        self._most = most
        self._feed = Feed(state)
        self.document = grown(self._feed.document)
        self.news: deque[News] = deque()  #: the oldest first
        self.trouble = ""  #: what is wrong with the file just now
        self.failure: BaseException | None = None  #: what has ended it before it was asked to
        self._ended = threading.Event()
        self._judged: tuple[int, ...] | None = None
        self._seen: tuple[tuple[int, ...] | None, float] = (None, 0.0)
        self._judge_after = 0.0
        self._damage = ""

    def end(self, timeout: float = 5.0) -> None:
        """Close the state. Waits for a look that is under way."""
        self._ended.set()
        if self.ident is None:
            self._close()  # it was never started
        else:
            self.join(timeout)

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                trouble = self._look()
                self.trouble = trouble or self._missing() or self._damaged()
                self._ended.wait(_INTERVAL)
        except BaseException as error:
            self.failure = error
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self._feed.close()
            self._state.close()
        except expected(PStateError, OSError) as error:
            self.trouble = str(error)

    def _look(self) -> str:
        try:
            for each in self._feed.news():
                self.news.append(each)
            if len(self.news) > self._most:
                self._skip()
        except expected(PStateError, OSError) as error:
            return str(error)
        look = getattr(store_of(self._state).log, "look", None)  # of a file; other engines have no trouble
        trouble = getattr(look, "trouble", None)
        return trouble.told if trouble is not None else ""

    def _skip(self) -> None:
        """The one that is told is too slow: the state, instead of what waits."""
        waiting: deque[News] = deque()
        with contextlib.suppress(IndexError):
            while True:
                # From the newest on: another thread that takes the oldest meanwhile has one that fits, and no two
                # threads have the same.
                waiting.appendleft(self.news.pop())
        if not waiting:
            return
        last: dict[tuple[Any, ...], Change] = {}
        counts: Counter[tuple[Any, ...]] = Counter()
        for news in waiting:
            for change in () if news.is_past else news.changes:
                last[change.path] = change
                counts[change.path] += 1
            counts.update(news.counts)
        told = News(
            waiting[-1].time,
            None,
            None,
            list(last.values()),
            [],
            self._feed.state_now(),
            sum(each.commits for each in waiting),
            sum(each.edits for each in waiting),
            sum(each.size for each in waiting),
            {path: count for path, count in counts.items() if count > 1},
        )
        self.news.append(told)

    def _missing(self) -> str:
        if isinstance(self._file, Url):
            return ""  # a look has asked the server
        try:
            os.stat(self._file)
        except expected(FileNotFoundError):
            self._seen = None, 0.0
            return f"{self._file} was deleted. This is what it said. If it comes back, the view goes on with it."
        except expected(OSError) as error:
            return f"{self._file}: {error.strerror}. This is what it said."
        return ""

    def _damaged(self) -> str:
        """What is wrong with the bytes of the file, where it has been left alone for a while.

        A read believes what it has read before. Only a program that opens the file now would find damage there.
        """
        if isinstance(self._file, Url):
            return ""
        now = time.monotonic()
        try:
            status = os.stat(self._file)
        except expected(OSError):
            return self._damage
        shape = status.st_ino, status.st_size, status.st_mtime_ns
        if shape != self._seen[0]:
            self._seen = shape, now
        if shape == self._judged or now - self._seen[1] < _QUIET or now < self._judge_after:
            return self._damage
        self._damage = ""
        try:
            path, data = os.path.realpath(self._file), unopened.content(self._file)
            unopened.replayed(unopened.read(data, path), path, data)
        except expected(StateFileError) as error:
            self._damage = str(error)
        except expected(PStateError, OSError) as error:
            self._damage = str(error)
        self._judged = shape
        self._judge_after = time.monotonic() + _COST * (time.monotonic() - now)
        return self._damage
