"""The position of memory in the history of the file, and the ways in which it changes."""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable
from zlib import crc32

from pstate.engine import Memory, Operations, Origin, State
from pstate.errors import CorruptStateError, StateFileError
from pstate.file import format as f
from pstate.file import recovery
from pstate.file.fs import NO_DESCRIPTOR
from pstate.file.hold import Hold
from pstate.file.journal import Journal, View, known
from pstate.file.look import Look
from pstate.file.recovery import Records
from pstate.file.site import Site
from pstate.file.trail import Trails
from pstate.signals import expected


class Standing:
    """The journal that memory is at, and the position in it. Applies commits of others, and reads whole files."""

    __slots__ = ("before", "fs", "hold", "journal", "look", "memory", "site", "trails")

    def __init__(self, site: Site, look: Look, hold: Hold, memory: Memory) -> None:
        self.site, self.fs, self.look, self.hold, self.memory = site, site.fs, look, hold, memory
        #: The file that memory was read from; None before it is opened, and at rest.
        self.journal: Journal | None = None
        #: The view before the last change of memory.
        self.before: View | None = None
        #: The notes for the watches of the state.
        self.trails = Trails(site.fs)

    @property
    def view(self) -> View:
        """The view of memory, which must be one that can be trusted."""
        view: View | None = self.memory.view
        assert view is not None
        return view

    def has_no_commits(self) -> bool:
        """Whether memory is the state of a document that no record follows yet."""
        if self.memory.view is None:
            return False
        _, _, _, index, _ = self.view
        return not index

    def catch_up(self) -> bytes | None:
        """Apply the commits since the view. Returns the bytes after the last commit; None if the file has shrunk.

        Raises as `Journal.demand`, because the content of another file must not be applied.
        """
        view = self.view
        fd, end, crc, index, journal = view
        journal.demand()
        while True:
            size = self.fs.lseek(fd, 0, os.SEEK_END)
            if size == end:
                return b""
            if size < end:
                return None
            data = journal.read(end)
            if end + len(data) >= size:
                break  # otherwise it was cut between the two calls, perhaps by a save in place
        start = 0
        base, marker = journal.base, journal.marker
        if marker is None:
            prefix = f.first_node(base)
            if prefix and data.startswith(prefix):
                start = len(prefix)
                base += prefix
            found = f.read_marker(data, start)
            if found is None or not found[0].describes(base):
                return data
            marker, start = found
            crc = f.first_crc(marker.generation)
        bodies, stop, crc = f.read_records(data, start, crc)
        if not bodies:
            return data
        records = recovery.decode(bodies, self.site.path, journal.read, index)
        self.trails.others(index, index + len(bodies))
        self.before = view
        self.memory.view = None
        for number, record in enumerate(records):
            try:
                self.memory.apply(record)
            except expected(LookupError, TypeError, ValueError) as error:
                following = len(records) - number - 1
                raise recovery.does_not_fit(self.site.path, journal.read(), index + number, following, error) from error
        if marker is not journal.marker:
            journal.set_base(base, marker, appendable=True)
        # By position: it may already have a commit of ours that an exception has kept from being published.
        journal.content[end:] = data[:stop]
        self.memory.view = (fd, end + stop, crc, index + len(bodies), journal)
        return data[stop:]

    def is_changed_in_place(self, status: os.stat_result, now: float) -> bool:
        """Whether our file was rewritten in place. Its time stamp tells when to compare its content."""
        view = self.view
        _, _, _, _, journal = view
        if status.st_mtime_ns == journal.mtime or now < self.look.check_at:
            return False
        if not journal.holds(view):
            return True
        journal.mtime = status.st_mtime_ns
        self.look.check_after(now)
        return False

    def is_foreign(self, journal: Journal, now: float) -> bool:
        """Whether bytes follow `end` because the content of the whole file is not the one that memory knows."""
        if now < self.look.check_at:
            return False
        foreign = not self.is_ours(recovery.scan(journal.read()), journal)
        self.look.check_after(now)
        return foreign

    def is_ours(self, image: f.Image, journal: Journal) -> bool:
        """Whether *image*, of the whole file, shows the history that memory knows, up to the same commit."""
        _, end, crc, index, _ = self.view
        return (image.end, image.crc, image.index) == (end, crc, index) and crc32(image.base) == journal.base_crc

    def looked(self, now: float) -> None:
        """The path shows our file, as of *now*."""
        self.look.looked(now, self.journal is not None and self.journal.is_easy())

    def restore(self, view: View) -> None:
        """Set memory back to *view*, from our copy and not from the file."""
        fd, end, crc, index, journal = view
        self.memory.adopt(self._replay_of(journal, index))
        self.memory.view = (fd, end, crc, index, journal)

    def load(self, journal: Journal, origin: Origin = "other") -> None:
        """Read the whole *journal* and make memory equal to it. Raises StateFileError, with memory as it was.

        *origin*: the origin of the differences, if the file is not the one that memory knows.
        """
        mtime = self.fs.fstat(journal.fd).st_mtime_ns
        data = journal.read()
        journal.demand()  # to be sure that no other file was read
        try:
            content = recovery.read(data, self.site.path, self.fs.boot_id)
        except CorruptStateError:
            # A reader does not wait for a lock: a writer may have cut a torn tail, and appended, while we read.
            before, data = data, journal.read()
            if data == before:
                raise
            content = recovery.read(data, self.site.path, self.fs.boot_id)
        state = self.replay(content.state, content.records, journal.read)
        if self.trails:
            self.trails.load(journal, content.image, content.state, state, origin)
        self.become(state, journal, data, content.image, content.appendable, mtime)

    def become(self, state: State, journal: Journal, data: bytes, image: f.Image, appendable: bool, mtime: int) -> None:
        """Make memory *state*, which is the state of *journal*, or is about to be."""
        self.memory.view = None
        journal.set_base(image.base, image.marker, appendable)
        journal.content[:] = data[: image.end]
        self.memory.adopt(state)
        journal.mtime = mtime
        self.publish(journal, (journal.fd, image.end, image.crc, image.index, journal))

    def replay(self, state: State, records: list[Operations] | Records, file: Callable[[], bytes]) -> State:
        """*state* after *records*, the first ones of the bytes that *file* returns. Raises CorruptStateError."""
        if not records:
            return state
        try:
            return self.memory.replay(state, records)
        except expected(StateFileError):
            raise  # a record that cannot be decoded
        except expected(LookupError, TypeError, ValueError) as error:
            known = list(records)
            good = bisect.bisect_left(range(len(known)), True, key=lambda count: not self.fit(state, known, count))
            following = len(records) - good
            raise recovery.does_not_fit(self.site.path, file(), good - 1, following, error) from error

    def fit(self, state: State, records: list[Operations], count: int) -> bool:
        """Whether the first *count* of *records* fit *state*."""
        try:
            self.memory.replay(state, records[:count])
        except expected(LookupError, TypeError, ValueError):
            return False
        return True

    def publish(self, journal: Journal, view: View) -> None:
        """Note that memory is at *view*, in *journal*, which is at the path, without any trouble."""
        self.hold.unlocker(journal)
        self.journal = journal
        now = self.fs.clock()
        self.look.check_at = now
        self.looked(now)
        self.memory.view = view

    def ends_there(self, journal: Journal, base: bytes) -> bool:
        """Whether *base*, with which *journal* begins, is its whole base document, not the beginning of one."""
        behind = journal.read(len(base), 64)
        found = f.read_marker(behind)
        return not behind or (found is not None and found[0].describes(base))

    def trailer_after_edit(self, journal: Journal) -> f.Trailer | None:
        """The trailer of another process that has dealt with an edit in place of our file, if there is one."""
        trailer = f.scan(journal.read()).trailer
        if trailer is None or not self.is_of_ours(trailer):
            return None
        # Its length and checksum are those of the edited state, not of memory.
        return f.Trailer(trailer.generation, 0, trailer.crc, trailer.index, trailer.own_crc)

    def read_trailer(self, rest: bytes | None) -> f.Trailer | None:
        """The trailer that *rest*, the bytes after `view`, consists of."""
        trailer = f.read_trailer(rest) if rest else None
        return trailer if trailer is not None and self.is_of_ours(trailer) else None

    def is_of_ours(self, trailer: f.Trailer) -> bool:
        """Whether the process that wrote *trailer* knew our generation, if that had begun then.

        If not, a save in place during our first commit has overwritten that, with a copy of another generation.
        """
        generation, index = known(self.view)
        return not index or trailer.generation in (generation, f.NO_GENERATION)

    def lacks(self, trailer: f.Trailer) -> bool:
        """Whether we know commits that the process that handled an edit in place had not read before it."""
        generation, index = known(self.view)
        # A process that was before the first commit knew no generation yet.
        return trailer.generation in (generation, f.NO_GENERATION) and trailer.index < index

    def replay_known(self, index: int) -> State:
        """The state after the first *index* records that memory knows."""
        _, _, _, _, journal = self.view
        return self._replay_of(journal, index)

    def _replay_of(self, journal: Journal, index: int) -> State:
        records = recovery.decode(journal.bodies(index), self.site.path, journal.read)
        return self.replay(recovery.document(journal.base, self.site.path), records, journal.read)

    def check(self) -> None:
        """See `engine.Log.check`."""
        self.trails.check(self.journal)
        if self.memory.view is None:
            return
        fd, end, crc, index, journal = self.view
        assert journal is self.journal, "I4: memory is in another file than the log"
        assert fd == journal.fd or journal.fd == NO_DESCRIPTOR, "I4: the view has the descriptor of another file"
        image = f.scan(bytes(journal.content))
        found = image.end, image.index, image.crc if index else crc
        assert found == (end, index, crc), f"I4: memory is at {(end, index, crc)}, its commits end at {found}"
        assert journal.synced <= end, "I11: more bytes count as settled than exist"

    def rest(self) -> None:
        """Close the file."""
        if self.trails:
            self.trails.rest()
        self.memory.view = None
        self.journal = self.before = None
