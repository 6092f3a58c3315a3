"""`pstate log`: the records of the journal as changes, and those that come while one looks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from pstate import files, ops, recovery
from pstate import format as f
from pstate.cli import changes, paths, session, show
from pstate.cli.changes import Change
from pstate.cli.command import Command, Parser, declare_file, declare_json, declare_path
from pstate.errors import PStateError
from pstate.fs import SYSTEM
from pstate.log import QUIET

#: How often a file is looked at that is followed, in seconds.
INTERVAL = 0.1

#: The number of a record, or None for what was found changed without one; and the changes.
Entry = tuple[int | None, list[Change]]


def _declare(parser: Parser) -> None:
    declare_file(parser)
    declare_path(parser, optional=True)
    declare_json(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is committed from now on")


def _run(arguments: Any) -> int:
    place = paths.parse(arguments.path)
    following = Following(arguments.file)
    _print(following.entries(), place, arguments.json)
    while arguments.follow:
        sys.stdout.flush()
        time.sleep(INTERVAL)
        _print(following.news(), place, arguments.json)
    return 0


def _print(entries: Iterator[Entry], place: list[Any], as_json: bool) -> None:
    for number, all_changes in entries:
        found = [change for change in all_changes if changes.touches(change, place)]
        if as_json and found:
            show.write(show.json_text({"commit": number, "changes": [change.fields() for change in found]}) + "\n")
        elif not as_json:
            for change in found:
                show.write(f"{'' if number is None else number:>4} {change.line()}\n")


class Position:
    """One open file, and how far its records have been read."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._journal = files.open_state(SYSTEM, path, read_only=True)
        except FileNotFoundError as error:
            raise session.missing(path, error) from error
        try:
            self._read_at = time.time()
            self._data = self._journal.read()
            found = recovery.read(self._data, path, SYSTEM.boot_id)
        except BaseException:
            self.close()
            raise
        self._image, self._records = found.image, iter(found.records)
        self.root = session.grown(found.state)
        self._index, self._end, self._crc = 0, found.image.end, found.image.crc

    def close(self) -> None:
        self._journal.close()

    def entries(self) -> Iterator[Entry]:
        """The records that were there, each applied when it is asked for."""
        for operations in self._records:
            yield self._next(operations)

    def _next(self, operations: list[Any]) -> Entry:
        self._index += 1
        count = max(self._index, self._image.index)
        found: list[Change] = []
        for operation in operations:
            with contextlib.suppress(LookupError, TypeError, ValueError):  # `play` says what is wrong
                found += changes.of_operation(self.root, operation)
            session.play(self.root, [operation], self.path, self._data, self._index, count)
        return self._index, found

    def appended(self) -> Iterator[Entry]:
        """The records that have come to this file since."""
        rest = self._journal.read(self._end)
        if rest and self._image.marker is None:
            self._begin()
            yield from self.entries()
        elif rest:
            bodies, length, self._crc = f.read_records(rest, 0, self._crc)
            for operations in recovery.decode(bodies, self.path, self._journal.read, self._index):
                yield self._next(operations)
            self._end += length

    def _begin(self) -> None:
        """There was no journal, and now there may be one."""
        data = self._journal.read()
        image = recovery.scan(data)
        if image.marker is not None and image.base.startswith(self._image.base):
            self._data, self._image = data, image
            self._records = iter(recovery.Records(image.bodies, self.path, lambda: data))
            self._end, self._crc = image.end, image.crc

    def is_over(self) -> bool:
        """Whether the path shows something else by now: another file, or what somebody has saved into this one."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return False  # between two steps of somebody, or deleted
        if (status.st_dev, status.st_ino) != self._journal.identity or status.st_size < self._end:
            return True
        if status.st_mtime_ns == self._journal.mtime:
            return False
        data = self._journal.read()
        base = self._image.base
        if not data.startswith(base) or (self._image.marker is None and recovery.scan(data).base != base):
            return True
        self._journal.mtime = status.st_mtime_ns
        return False

    def is_half(self) -> bool:
        """Whether this may be the beginning of a save in place, which empties the file first, and may take a while.

        What programs are at work on, which is seen by its journal, may change at any time, and is whole.
        """
        if not self._data:
            return True
        return self._image.marker is None and os.fstat(self._journal.fd).st_mtime > self._read_at - QUIET


class Following:
    """Reads the commits of a file one after the other, without any lock, through vacuums and edits."""

    def __init__(self, file: str) -> None:
        self.path = os.path.realpath(file)
        self._complaint = ""
        self._position = Position(self.path)

    def entries(self) -> Iterator[Entry]:
        """The records that are there."""
        return self._position.entries()

    def news(self) -> Iterator[Entry]:
        """What has come since. A file that cannot be read now is tried again the next time."""
        try:
            yield from self._position.appended()
            if self._position.is_over():
                yield from self._go_on()
        except (PStateError, OSError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                print(f"pstate: {error}", file=sys.stderr)

    def _go_on(self) -> Iterator[Entry]:
        """A vacuum's file says what we know. What differs was edited, or committed and vacuumed since the last look."""
        new = Position(self.path)
        if new.is_half():
            new.close()
            return
        old, self._position = self._position, new
        old.close()
        self._complaint = ""
        edited = list(changes.between(ops.plain(old.root), ops.plain(new.root), []))
        if edited:
            yield None, edited
        yield from new.entries()


COMMANDS = {
    "log": Command(
        "log",
        "show the commits in the journal",
        "Print the changes of each commit in the journal, with the number of the commit: + a value is new, - it is\n"
        "gone, ~ it has changed. With PATH, only those of that place, of places in it, and of what it is in.\n"
        "A journal goes back to the last vacuum; a plain document has none. No lock is taken, no byte changes.\n"
        "With --follow, what has no number was edited by hand, or committed and vacuumed between two looks.",
        "$ pstate log journal.yaml\n"
        "   1 ~ counter: 3 -> 4\n"
        "   2 ~ key.nested: 2 -> 3\n"
        '   2 + log: ["both, or neither"]\n'
        "$ pstate log journal.yaml --json counter\n"
        '{"commit": 1, "changes": [{"path": "counter", "old": 3, "new": 4}]}',
        _declare,
        _run,
    )
}
