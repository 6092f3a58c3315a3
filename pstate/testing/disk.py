"""A disk in memory: the view of programs, the bytes that have reached the medium, and all states after a power cut.

The model, and what it grants to the store:

- A file is an inode. All programs see a write at once, and it is on the medium after a sync of the file.
- Until then, the medium has any version of each block since the last sync, and any length of the file, up to any byte.
  So appended bytes are missing, cut anywhere, or zeros if the length has reached the medium before the block. A block
  shows bytes from before a cut; a cut overtakes the writes before it, or is missing. Blocks never show the bytes of
  *other* files, which only file systems without journals do.
- The entries of a folder change in order, and until the folder is synced, any number of the last changes may be
  missing. Journaling file systems do that; a name never points to an inode that did not exist.
- After a sync that failed, no byte has reached the medium, nor does it by a later one (the pages count as clean).
- A lock belongs to an open file description, and ends with the last descriptor of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random

ROOT_FILE_MODE = 0o100644

#: The bytes that a disk writes as a whole or not at all.
BLOCK = 512

#: A change of the folder: names and the inodes that they point to from then on, or None.
Entries = tuple[tuple[str, "Inode | None"], ...]
#: The files that a machine finds after its next boot: content by path.
Image = dict[str, bytes]


class Inode:
    """A file without its names."""

    __slots__ = ("content", "holder", "mode", "number", "owner", "sick", "times_changed", "versions", "watchers")

    def __init__(self, number: int, content: bytes = b"", mode: int = ROOT_FILE_MODE, owner: int = 0) -> None:
        self.number = number
        self.content = content  #: as programs see it
        self.versions = [content]  #: every content since the last sync, that one first
        self.sick = False  #: whether a sync has failed
        self.mode = mode
        self.owner = owner
        self.times_changed = 0
        self.holder: Description | None = None  #: the description that has locked it
        self.watchers: set[Description] = set()

    @property
    def durable(self) -> bytes:
        """The content that is certainly on the medium."""
        return self.versions[0]

    def write(self, offset: int, data: bytes) -> None:
        content = self.content.ljust(offset, b"\0")
        self._become(content[:offset] + data + content[offset + len(data) :])

    def truncate(self, length: int) -> None:
        self._become(self.content[:length].ljust(length, b"\0"))

    def _become(self, content: bytes) -> None:
        self.content = content
        self.versions.append(content)
        self.times_changed += 1

    def sync(self) -> None:
        if not self.sick:
            self.versions = [self.content]

    def outcomes(self, cuts: str) -> list[bytes]:
        """The contents that a power cut may leave: a version, with the length of another, or with one block of another.

        *cuts*: also lengths at a "few" bytes in between, or at "every" one.
        """
        found: dict[bytes, None] = dict.fromkeys(self.versions)
        for number, version in enumerate(self.versions):
            if number:
                shorter, longer = sorted((len(self.versions[number - 1]), len(version)))
                for length in _lengths(shorter, longer, cuts):
                    found[max(version, self.versions[number - 1], key=len)[:length]] = None
            for other in self.versions:
                # The length of one with the blocks of the other, all of them or one.
                found[other[: len(version)].ljust(len(version), b"\0")] = None
                for start in range(0, len(version), BLOCK):
                    stop = min(start + BLOCK, len(version))
                    if other[start:stop] != version[start:stop]:
                        block = other[start:stop].ljust(stop - start, b"\0")
                        found[version[:start] + block + version[stop:]] = None
        return list(found)


def _lengths(shorter: int, longer: int, cuts: str) -> Iterator[int]:
    if cuts == "every":
        yield from range(shorter + 1, longer)
    else:
        yield from {shorter + 1, (shorter + longer) // 2, longer - 1}


class Description:
    """An open file description, which `open` makes, and a fork shares."""

    __slots__ = ("appending", "descriptors", "inode", "position", "writable")

    def __init__(self, inode: Inode, writable: bool, appending: bool) -> None:
        self.inode = inode
        self.writable = writable
        self.appending = appending
        self.position = 0
        self.descriptors = 1


class SimulatedDisk:
    """Files by their absolute paths, on one file system. Every folder exists."""

    def __init__(self, files: Image | None = None, boot: str = "b0070001") -> None:
        self._last = 0
        self.boot = boot
        self.names: dict[str, Inode] = {path: self.create(content) for path, content in (files or {}).items()}
        self.durable_names = dict(self.names)
        self.entries: list[Entries] = []  #: changes of the folder since its last sync
        self.changes = 0  #: the number of changes so far, for processes that wait for one

    def create(self, content: bytes = b"", mode: int = ROOT_FILE_MODE, owner: int = 0) -> Inode:
        """A file that has no name yet."""
        self._last += 1
        return Inode(self._last, content, mode, owner)

    def name(self, *entries: tuple[str, Inode | None]) -> None:
        """Let names point to inodes from now on, in one step."""
        for path, inode in entries:
            if inode is None:
                self.names.pop(path, None)
            else:
                self.names[path] = inode
        self.entries.append(entries)

    def links(self, inode: Inode) -> int:
        return sum(each is inode for each in self.names.values())

    def sync_folder(self) -> None:
        self.durable_names = dict(self.names)
        self.entries = []

    def files(self) -> Image:
        """The files as programs see them."""
        return {path: inode.content for path, inode in self.names.items()}

    def after_power_cut(self, cuts: str = "few") -> Iterator[Image]:
        """Every state that the medium may be in after a power cut now. Some may come twice.

        If several files have changes under way, all of them are combined at their oldest and newest, and each of them
        by itself in every way.
        """
        names = dict(self.durable_names)
        stages = [dict(names)]
        for entries in self.entries:
            for path, inode in entries:
                if inode is None:
                    names.pop(path, None)
                else:
                    names[path] = inode
            stages.append(dict(names))
        for stage in stages:
            inodes = list({inode.number: inode for inode in stage.values()}.values())
            ways = {inode.number: inode.outcomes(cuts) for inode in inodes}
            for chosen in inodes:
                others = [inode for inode in inodes if inode is not chosen]
                for extremes in product(*({inode.durable, inode.content} for inode in others)):
                    contents = {inode.number: content for inode, content in zip(others, extremes, strict=True)}
                    for content in ways[chosen.number]:
                        contents[chosen.number] = content
                        yield {path: contents[inode.number] for path, inode in stage.items()}
            if not inodes:
                yield {}

    def some_power_cut(self, random: Random) -> Image:
        """One of those states, drawn by *random*, independently for each file."""
        names = dict(self.durable_names)
        for entries in self.entries[: random.randint(0, len(self.entries))]:
            for path, inode in entries:
                if inode is None:
                    names.pop(path, None)
                else:
                    names[path] = inode
        contents: dict[int, bytes] = {}
        for inode in names.values():
            if inode.number not in contents:
                contents[inode.number] = random.choice(inode.outcomes("every"))
        return {path: contents[inode.number] for path, inode in names.items()}
