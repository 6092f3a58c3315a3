"""Planted faults: what the simulation must find, or it proves nothing. For the tests only.

A fault is a small change of one function's source. It is made in the running process, where the simulation runs too,
so nothing in the package knows of it. A fault whose source has moved on fails loudly.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pstate.speed import replaced
from stress.simulated import judge


@dataclass(frozen=True)
class Fault:
    """*old* in the source of *function* ("module:qualified.name") becomes *new*."""

    name: str
    function: str
    old: str
    new: str
    caught_by: str  #: a scenario


_RENAMES = """\
        # Each name is noted before it is tried: an exception may come as soon as the file has it.
        for swap in names(path, "swap"):
            if _has_renamed(fs, building, swap):
                break
"""

FAULTS = [
    Fault(
        "no lock",
        "pstate.testing.system:SimulatedSystem._flock",
        "inode.holder not in (None, description)",
        "False",
        "two writers",
    ),
    Fault(
        "lock released before the write",
        "pstate.file.log:FileLog.commit",
        "    if journal.marker is None:",
        "    self.hold.unlock()\n    if journal.marker is None:",
        "two writers",
    ),
    Fault(
        "size not compared after locking",
        "pstate.file.log:FileLog.begin",
        "if lseek(fd, 0, 2) == end:",
        "if True:",
        "two writers",
    ),
    Fault(
        "no look whether the locked file is the one at the path",
        "pstate.file.log:FileLog._become_current",
        "if not journal.is_file_of(status):",
        "if False:",
        "writer and vacuum",
    ),
    Fault(
        "no look whether the file has grown",
        "pstate.file.standing:Standing.catch_up",
        "if size == end:",
        "if True:",
        "writer and reader",
    ),
    Fault(
        "no checksum",
        "pstate.file.format:read_records",
        "if computed != int(written, 16):",
        "if False:",
        "a record of several sectors",
    ),
    Fault(
        "a power cut's hole is always damage",
        "pstate.file.recovery:_power_cut_explains",
        "return image.hole",
        "return False",
        "records across sectors",
    ),
    Fault(
        "zeros in the place of the base marker are not understood",
        "pstate.file.format:lost_marker",
        "if start < 0:",
        "if True:",
        "two writers",
    ),
    Fault("a torn tail is not cut", "pstate.file.merging:Merging.cut", "journal.truncate(end)", "pass", "two writers"),
    Fault(
        "applied before it is written",
        "pstate.store:Store.mutate",
        "view = log.commit(body)",
        "[apply(node, op, True) for op in prepared]; view = log.commit(body)",
        "failing calls: two writers",
    ),
    Fault(
        "one record for each operation of a transaction",
        "pstate.store:Store.commit_block",
        "view = self.log.commit(encode_body(changes.operations), self._base_view)",
        "for op in changes.operations:\n"
        "            view = self._base_view = self.log.commit(encode_body([op]), self._base_view)",
        "transaction and reader",
    ),
    Fault(
        "rollback forgets the order of a list",
        "pstate.memory.transaction:Pending.add_undo",
        "reversed(ops.inverse(node, prepared, self.ordered))",
        "reversed([op for op in ops.inverse(node, prepared, self.ordered) if op[0] != 'order'])",
        "a transaction that is undone",
    ),
    Fault(
        "rollback forgets", "pstate.store:Store._undo", "apply(node, op, True)", "pass", "a transaction that is undone"
    ),
    Fault(
        "a new file is renamed before it is synced",
        "pstate.file.vacuum:_write",
        "fs.sync(new.fd)",
        "pass",
        "around a vacuum",
    ),
    Fault(
        "no trailer",
        "pstate.file.vacuum:replace",
        "if len(content) == end and _takes_trailer(old, content):",
        "if False:",
        "vacuum and reader",
    ),
    Fault(
        "trailer after the exchange",
        "pstate.file.vacuum:replace",
        "            old.append(trailer, end)\n"
        + _RENAMES
        + "        _put(fs, swap, path, old, content + trailer, absent)",
        _RENAMES + "        _put(fs, swap, path, old, content, absent)\n"
        "        if trailer:\n            old.append(trailer, end)",
        "vacuum and reader",
    ),
    Fault(
        "the new file is not locked",
        "pstate.file.vacuum:replace",
        "flock(new.fd, EXCLUSIVE_NOW)",
        "pass",
        "two vacuums and a writer",
    ),
    Fault(
        "a forked child unlocks before it closes",
        "pstate.file.log:FileLog.forget",
        "lock.forget(self.hold.flock)",
        "self.hold.unlock()",
        "fork in a transaction, and a writer",
    ),
    Fault(
        "a forked child is in the parent's transaction",
        "pstate.store:Store.after_fork",
        "self.changes = None",
        "pass",
        "fork in a transaction",
    ),
    Fault(
        "power: no sync",
        "pstate.file.settling:Settling._sync",
        "self._fs.sync_data(journal.fd)",
        "pass",
        "power: two writers",
    ),
    Fault(
        "power: no sync of the folder",
        "pstate.file.settling:Settling._sync",
        "if journal.folder_due:",
        "if False:",
        "power: a new file",
    ),
    Fault(
        "power: only the process that made the file syncs its folder",
        "pstate.file.regaining:Regaining.reload",
        "standing.load(journal)",
        "journal.folder_due = False; standing.load(journal)",
        "power: a new file of two",
    ),
    Fault(
        "power: acknowledged before it is synced",
        "pstate.file.settling:Settling.settle",
        "self._sync(journal)",
        "pass",
        "power: two writers",
    ),
    Fault(
        "an edit is overwritten by a vacuum",
        "pstate.file.vacuum:_put",
        "if _identity(fs, swap) != old.identity or old.read() != content:",
        "if False:",
        "saved by rename, a and v",
    ),
    Fault(
        "a vacuum writes to a missing path at once",
        "pstate.file.vacuum:_put",
        "if absent:",
        "if absent or _identity(fs, path) is None:",
        "saved with a backup, v",
    ),
    Fault(
        "a vacuum cuts its trailer off a save in place",
        "pstate.file.vacuum:_take_back",
        "if trailer and old.read() == content + trailer:\n            old.truncate(len(content))",
        "if trailer and (n := old.read()).endswith(trailer):\n            old.truncate(len(n) - len(trailer))",
        "saved in place, v",
    ),
    Fault(
        "a half save is followed to",
        "pstate.file.saves:Saves.follow",
        "self.await_quiet(journal, at_most)",
        "pass",
        "saved in place, a and v",
    ),
    Fault(
        "a half save is taken for a whole one",
        "pstate.file.saves:Saves.await_quiet",
        "while not self.look.is_quiet(status := self.fs.fstat(journal.fd)):",
        "while (status := self.fs.fstat(journal.fd)) is None:",
        "saved with a backup, a transaction",
    ),
    Fault(
        "a look that finds nothing counts for the commit that follows",
        "pstate.file.log:FileLog._refresh",
        "self.look.retry_at = now + limits.LOOK_INTERVAL",
        "self.look.look_at = self.look.look_due = now + limits.LOOK_INTERVAL",
        "deleted, a look, a commit",
    ),
    Fault(
        "a look that finds a save counts for the commit that follows",
        "pstate.file.log:FileLog._edit_seen",
        "self.look.retry_at = now + min(limits.QUIET, limits.CHECK_INTERVAL)",
        "self.look.look_at = self.look.look_due = now + min(limits.QUIET, limits.CHECK_INTERVAL)",
        "saved by rename, a look, a commit",
    ),
    Fault(
        "a save that takes no trailer is brought together with commits by each program",
        "pstate.file.vacuum:replace",
        "if judged is not None and not trailer:",
        "if False:",
        "saved as a new document, a and r",
    ),
    Fault(
        "a stranger's file under a temporary name is taken for ours",
        "pstate.file.files:read_beside",
        "must_be_ours(fs, path, status, owner)",
        "pass",
        "around a vacuum, with strangers' files beside",
    ),
    Fault(
        "a stranger's name keeps a vacuum off",
        "pstate.file.vacuum:_begin",
        "tolerating(FileExistsError)",
        "tolerating(KeyError)",
        "around a vacuum, with a pipe and a link beside",
    ),
    Fault(
        "without an exchange, the path is empty for a moment",
        "pstate.file.vacuum:_put",
        "fs.rename(swap, path)",
        "fs.unlink(path); fs.rename(swap, path)",
        "around a vacuum, with the plain rename",
    ),
    Fault(
        "a vacuum renames over what a stranger has put there",
        "pstate.file.vacuum:_has_renamed",
        "fs.rename_new(building, swap)",
        "fs.rename(building, swap)",
        "around a vacuum, with strangers' files beside",
    ),
    Fault(
        "a pipe under a temporary name is read",
        "pstate.file.files:read_beside",
        "status = open_beside(fs, file, path, os.O_RDONLY)",
        "status = fs.fstat(file.open(path, os.O_RDONLY))",
        "around a vacuum, with a pipe and a link beside",
    ),
    Fault(
        "a close does not ask for the lock",
        "pstate.file.log:FileLog.tidy",
        "self.begin(0, look=True)",
        "self._is_current(self._journal, 0)",
        "a close and a writer",
    ),
    Fault(
        "a vacuum does not wait for watches",
        "pstate.file.rewriting:Rewriting.put",
        "self.await_watchers(old)",
        "pass",
        "watch: commits between vacuums",
    ),
    Fault(
        "a watch has no mark",
        "pstate.file.trail:Trails._mark",
        "self._fs.watch(journal.fd)",
        "pass",
        "watch: commits between vacuums",
    ),
    Fault(
        "a watch gives its mark back before it has the next one",
        "pstate.file.saves:Saves.follow",
        "journal = self.site.open_other()",
        "self.standing.trails._mark(None); journal = self.site.open_other()",
        "watch: commits between vacuums",
    ),
    Fault(
        "a watch does not look again when it has its first mark",
        "pstate.watch:Watch._have_followed",
        "while (journal := core.read(begin, core.root, marked)) is not marked:\n        marked = journal",
        "core.read(begin, core.root, marked)",
        "watch: begins while others vacuum",
    ),
    Fault(
        "a watch takes the commits of others for ours",
        "pstate.file.standing:Standing.catch_up",
        "self.trails.others(index, index + len(bodies))",
        "pass",
        "watch: writer",
    ),
    Fault(
        "a watch does not go on where a vacuum of others goes on",
        "pstate.file.saves:Saves.follow",
        'self.standing.trails.become(journal, None, "other", 0, None)',
        "pass",
        "watch: commit and vacuum",
    ),
    Fault(
        "a watch does not go on where our vacuum goes on",
        "pstate.file.rewriting:Rewriting.put",
        'standing.trails.become(new, None if judged is None else state, "edit", 0, None)',
        "pass",
        "watch: the watching program commits and vacuums",
    ),
    Fault(
        "a watch forgets what is in a file that it leaves",
        "pstate.file.trail:Trail.become",
        "self.collect()",
        "pass",
        "watch: commits between vacuums",
    ),
    Fault(
        "a watch is not told of an edit",
        "pstate.file.merging:Merging._resolve",
        'self.standing.trails.become(journal, result.state, "edit", image.index, place_behind(image))',
        "pass",
        "watch: saved by rename, nobody else",
    ),
    Fault(
        "a watch looks for a record where a marker comes first",
        "pstate.file.merging:Merging._resolve",
        "place_behind(image)",
        "(image.end, image.crc)",
        "watch: saved by rename, nobody else",
    ),
    Fault(
        "a trailer that was read before the path showed another file leads there",
        "pstate.file.log:FileLog._refresh",
        "read_trailer(self.standing.catch_up())",
        "read_trailer(rest)",
        "watch: read-only, after a vacuum that died",
    ),
    Fault(
        "power: told before it is synced",
        "pstate.store:Store.read",
        "self.log.settle_what_is_read(view)",
        "pass",
        "watch: power",
    ),
    Fault(
        "a descriptor number is ours for ever",
        "pstate.file.fs:Descriptor.is_ours",
        "return self._fs.identity(self._noted[0]) == self.identity",
        "return True",
        "a daemon with a log of the same size, and a vacuum",
    ),
    Fault(
        "the first record goes to the file that has the number",
        "pstate.file.log:FileLog._is_as_it_was",
        "if journal.marker is None:",
        "if False:",
        "a daemon before its first commit, with a log of the same size",
    ),
    Fault(
        "what the program closed is locked all the same",
        "pstate.file.log:FileLog.begin",
        "(now < self._sure_until or self._is_as_it_was(view))",
        "True",
        "a daemon that sets, and a reader",
    ),
    Fault(
        "a lock is given back that went with its descriptor",
        "pstate.file.hold:Hold.drop_lost",
        "self.unlock = int",
        "pass",
        "a daemon in a transaction, and a writer",
    ),
    Fault(
        "what was lost is read again, without what we know",
        "pstate.file.regaining:Regaining._go_on_in",
        "new.take_over(old)",
        "pass",
        "a daemon and a writer",
    ),
]

#: What the simulation cannot have, and a check with real files and signals must find.
REAL_FAULTS = [
    Fault(
        "the errno of an exception decides whose it is",
        "pstate.signals:is_foreign",
        "return came_from_handler(error)",
        "return False",
        "signals",
    ),
    Fault(
        "what no record follows is cut off as torn",
        "pstate.file.format:scan",
        "Verdict.TORN if is_begun(image.rest, crc, image.base_edited) else Verdict.DAMAGED",
        "Verdict.DAMAGED if image.following else Verdict.TORN",
        "flip",
    ),
]


@contextlib.contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """Have *fault* in the running process."""
    module_name, _, path = fault.function.partition(":")
    owner: Any = importlib.import_module(module_name)
    *outer, name = path.split(".")
    for each in outer:
        owner = getattr(owner, each)
    there = inspect.getattr_static(owner, name)
    sound = replaced.get((owner, name), there)  # a simulation goes through Python, whatever is compiled
    source = textwrap.dedent(inspect.getsource(sound))
    assert source.count(fault.old) == 1, f"{fault.name}: the source of {fault.function} has moved on"
    namespace: dict[str, Any] = {}
    exec(compile(source.replace(fault.old, fault.new), f"<{fault.name}>", "exec"), sound.__globals__, namespace)
    setattr(owner, name, namespace[name])
    judge.forget()
    try:
        yield
    finally:
        setattr(owner, name, there)
        judge.forget()
