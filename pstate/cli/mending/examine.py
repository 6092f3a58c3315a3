"""Examines one state file. This module prints nothing, and changes no byte."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pstate.cli import session
from pstate.cli.command import in_our_words
from pstate.cli.mending import unopened
from pstate.cli.surprises import surprise
from pstate.errors import PStateError, StateFileError
from pstate.file import files, recovery, vacuum
from pstate.file import format as f
from pstate.file.fs import SYSTEM
from pstate.file.limits import JOURNAL_FACTOR, JOURNAL_MINIMUM, QUIET
from pstate.signals import expected
from pstate.text import reading

ERROR, WARNING, NOTE = "error", "warning", "note"


class Finding(NamedTuple):
    """One thing that is wrong (ERROR), wants a person (WARNING), or may be worth knowing (NOTE)."""

    severity: str
    kind: str
    message: str  #: begins with the path, and where it has one the line
    line: int | None = None
    column: int | None = None


class Report:
    """The findings and facts about one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.facts: dict[str, Any] = {}
        self.findings: list[Finding] = []

    def add(self, severity: str, kind: str, text: str, line: int | None = None, column: int | None = None) -> None:
        where = "".join(f":{number}" for number in (line, column) if number is not None)
        self.findings.append(Finding(severity, kind, f"{self.path}{where}: {text}", line, column))

    def refuse(self, error: PStateError) -> None:
        """The reason why the file cannot be used."""
        kind = type(error).__name__
        self.findings.append(
            Finding(ERROR, kind, in_our_words(str(error)), getattr(error, "line", None), getattr(error, "column", None))
        )

    @property
    def is_usable(self) -> bool:
        return all(finding.severity != ERROR for finding in self.findings)


def examine(file: str, step: Callable[[str], None]) -> Report:
    """The report on *file*; *step* is called with the name of each phase."""
    # Links are followed, as when the file is opened: the files beside the target count.
    report = Report(os.path.realpath(file))
    try:
        with session.no_collector():
            data, image = settled(file)
            _examine_bytes(report, data, image, step)
    except expected(PStateError) as error:
        report.refuse(error)
    else:
        step("looking at the folder")
        _examine_place(report)
    for finding in _beside(report.path):
        report.findings.append(finding)
    return report


# ------------------------------------------------------------------------------------------------------------ the bytes


def settled(file: str) -> tuple[bytes, f.Image]:
    """The bytes of *file*, read once more while they end in what may be the write of a program at work."""
    data = unopened.content(file)
    image = f.scan(data)
    for _ in range(5):
        if image.verdict is f.Verdict.CLEAN:
            break
        time.sleep(QUIET)
        before, data = data, unopened.content(file)
        if data == before:
            break
        image = f.scan(data)
    return data, image


def _examine_bytes(report: Report, data: bytes, image: f.Image, step: Callable[[str], None]) -> None:
    path = report.path
    report.facts["bytes"] = len(data)
    if not image.hole and recovery.is_theirs(data):
        _examine_theirs(report, data)
        return
    _examine_journal(report, image, data)
    state = _examine_document(report, image)
    if state is not None and report.is_usable and image.bodies:
        step(f"replaying {image.index:,} commits")
        try:
            records = recovery.Records(image.bodies, path, lambda: data)
            unopened.replayed(recovery.Content(state, image, True, records), path, data)
        except StateFileError as error:
            report.refuse(error)


def _examine_theirs(report: Report, data: bytes) -> None:
    report.facts["format"] = "persistedstate"
    try:
        recovery.read(data, report.path, SYSTEM.boot_id)
    except StateFileError as error:
        report.refuse(error)
    else:
        report.add(NOTE, "persistedstate", "a journal of persistedstate; the first commit converts it")


def _examine_journal(report: Report, image: f.Image, data: bytes) -> None:
    """Generation, records, and the bytes after the last one."""
    facts = report.facts
    facts |= {"document": len(image.base), "commits": image.index, "journal": image.end - len(image.base)}
    facts["end"] = image.verdict.value
    marker = image.marker
    if marker is not None:
        facts["generation"] = marker.generation
        facts["durability"] = "power" if marker.power else "process"
        boot = SYSTEM.boot_id()
        if f.UNKNOWN_BOOT not in (marker.boot, boot):
            facts["boot"] = "this one" if marker.boot == boot else "an earlier one"
        if facts["journal"] > 2 * max(JOURNAL_FACTOR * len(image.base), JOURNAL_MINIMUM):  # when it is due, it comes
            report.add(
                WARNING, "long journal", f"no vacuum has succeeded for a long time. Run: pstate vacuum {report.path}"
            )
    try:
        recovery.judge(image, data, report.path, SYSTEM.boot_id)
        if image.base_edited:
            raise recovery.edited_above_journal(image, data, report.path)
    except StateFileError as error:
        report.refuse(error)
        return
    line = f.line_number(data, image.end)
    if image.verdict is f.Verdict.TORN:
        text = f"torn tail: {len(image.rest)} bytes of an incomplete write ({image.reason}). Readers ignore it"
        report.add(WARNING, "torn tail", f"{text}, and the next writer cuts it off.", line)
    elif image.verdict is f.Verdict.DAMAGED and not f.has_more(image):
        text = f"torn tail: {len(image.rest)} bytes, with zeros among them, of a write that a power cut interrupted"
        report.add(WARNING, "torn tail", f"{text}. Readers ignore it, and the next writer cuts it off.", line)
    elif image.verdict is f.Verdict.DAMAGED:
        text = f"{len(image.rest)} bytes are unreadable after a power cut; {image.following} commits in them are lost"
        report.add(WARNING, "power cut", f"{text}. The next writer keeps them beside the file.", line)
    elif image.verdict is f.Verdict.MOVED:
        report.add(NOTE, "moved", "a vacuum is running, or was killed: the next writer cleans up.", line)


def _examine_document(report: Report, image: f.Image) -> dict[Any, Any] | None:
    base = examine_text(report, image.base)
    if base is None:
        return None
    if image.marker is None and not base.appendable and not f.has_no_node(image.base):
        text = "the document ends without a newline, or in a ... line: the first commit rewrites it."
        report.add(NOTE, "ending", text)
    return base.value


def examine_text(report: Report, document: bytes) -> reading.Base | None:
    """What *document* says, and notes about values that surprise people; None if it is refused."""

    def notice(text: str, value: Any, line: int, column: int) -> bool:
        found = surprise(text, value)
        if found is not None:
            report.add(NOTE, found.kind, found.sentence + ".", line, column)
        return found is not None

    try:
        base = reading.load_events(document, report.path, notice)
    except StateFileError as error:
        report.refuse(error)
        return None
    report.facts["keys"] = len(base.value)
    return base


# ------------------------------------------------------------------------------------------------------------ the place


def _examine_place(report: Report) -> None:
    path = report.path
    try:
        status = os.stat(path)
    except expected(FileNotFoundError):
        return
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        report.add(
            WARNING, "hard link", f"has {status.st_nlink} hard links: a vacuum separates them. Use a symbolic link."
        )
    if not os.access(os.path.dirname(path), os.W_OK):
        report.add(NOTE, "folder", "you cannot write to its folder, so your programs cannot vacuum it.")
    from pstate.cli.users import users_of

    if report.is_usable and report.facts.get("generation") and not _twice(lambda: users_of(path)):
        report.add(
            NOTE,
            "journal",
            f"has a journal, and no program that you can see has it open. To end it: pstate vacuum {path}",
        )


def _twice(look: Callable[[], Any]) -> Any:
    """What *look* finds, now or a moment later: in between, a vacuum may exchange the files."""
    found = look()
    if not found:
        time.sleep(QUIET)
        found = look()
    return found


def _stays(path: str) -> bool:
    """Whether the file at *path* exists for longer than it does in a running vacuum."""
    try:
        before = os.lstat(path)
        time.sleep(4 * QUIET)
        after = os.lstat(path)
    except expected(FileNotFoundError):
        return False
    # The number alone may be another file's by now.
    return (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)


def _beside(path: str) -> Iterator[Finding]:
    """The files that crashes and conflicts left beside the state file."""
    folder, name = os.path.split(path)
    try:
        there = sorted(os.listdir(folder or "."))
    except expected(OSError):
        return
    stem = files.fitting(name, 0)
    for other in there:
        whole = os.path.join(folder, other)
        is_new, is_old = (vacuum.is_temporary(whole, path, role) for role in ("vacuum", "swap"))
        if (is_new or is_old) and not _stays(whole):
            continue
        if is_new:
            text = "the new file of a running or killed vacuum: the next vacuum deletes it."
            yield Finding(NOTE, "orphan", f"{whole}: {text}")
        elif is_old:
            text = "left by a running or killed vacuum; it may be a save from an editor, which the next vacuum keeps."
            yield Finding(WARNING, "orphan", f"{whole}: {text}")
        elif other.startswith(f"{stem}.conflict-"):
            text = "the side of a conflict that is not in the file. Compare: pstate diff"
            yield Finding(WARNING, "conflict", f"{whole}: {text} {path} {whole}; then delete it.")
        elif other.startswith(f"{stem}.cut-"):
            text = "unreadable bytes that were cut out of the file. Look at them, then delete it."
            yield Finding(WARNING, "cut", f"{whole}: {text}")
        elif other.startswith((f"{stem}.before-repair", f"{stem}.before-resolve")):
            text = "the file as it was before the repair. Delete it when nobody needs the lost values."
            yield Finding(NOTE, "copy", f"{whole}: {text}")
