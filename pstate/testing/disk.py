"""A disk in memory: what programs see of it, what has reached the medium, and every state that a power cut can leave.

The model, and what it grants to the store:

- A file is an inode. What is written to it is seen by everybody at once, and is on the medium after a sync of the file.
- Until then the medium has, of each block, any version that there was since the last sync, and of the file's length any
  one up to any byte: so appended bytes are missing, cut anywhere, or zeros where the length came and the block did not;
  a block shows what stood there before a cut; a cut overtakes the writes before it, or is missing. Blocks never show
  what *other* files had in them: only file systems without journals do that.
- A folder's entries change in their order, and any number of the last changes may be missing, until the folder is
  synced. That is how journaling file systems do it; a name never points to an inode that was not there.
- A sync that failed has brought nothing to the medium, and no later one does (the pages count as clean).
- A lock belongs to an open file description, and goes with the last descriptor of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random

ROOT_FILE_MODE = 0o100644

#: What a disk writes whole or not at all, in bytes.
BLOCK = 512

#: A change of the folder: names and what they point to from then on, None for nothing.
Entries = tuple[tuple[str, "Inode | None"], ...]
#: What a machine finds after its next boot: the content of each file by its path.
Image = dict[str, bytes]


class Inode:
    """A file without its names."""

    __slots__ = ("content", "holder", "mode", "number", "owner", "sick", "times_changed", "versions", "watchers")

    def __init__(self, number: int, content: bytes = b"", mode: int = ROOT_FILE_MODE, owner: int = 0) -> None:
        self.number = number
        self.content = content  #: as programs see it
        self.versions = [content]  #: every content since the last sync, that one first
        self.sick = False  #: a sync has failed
        self.mode = mode
        self.owner = owner
        self.times_changed = 0
        self.holder: Description | None = None  #: who has locked it
        self.watchers: set[Description] = set()

    @property
    def durable(self) -> bytes:
        """What is on the medium for certain."""
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
        """What a power cut may make of it: one version, with another one's length, or with one block of another one.

        *cuts*: the length also at a "few" bytes in between, or at "every" one.
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
    """An open file description: what `open` makes, and what a fork shares."""

    __slots__ = ("appending", "descriptors", "inode", "position", "writable")

    def __init__(self, inode: Inode, writable: bool, appending: bool) -> None:
        self.inode = inode
        self.writable = writable
        self.appending = appending
        self.position = 0
        self.descriptors = 1


class SimulatedDisk:
    """Files by their absolute paths, on one file system. Folders are there when somebody looks for them."""

    def __init__(self, files: Image | None = None, boot: str = "b0070001") -> None:
        self._last = 0
        self.boot = boot
        self.names: dict[str, Inode] = {path: self.create(content) for path, content in (files or {}).items()}
        self.durable_names = dict(self.names)
        self.entries: list[Entries] = []  #: changes of the folder since its last sync
        self.changes = 0  #: how often anything has changed: for those who wait

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
        """What programs see."""
        return {path: inode.content for path, inode in self.names.items()}

    def after_power_cut(self, cuts: str = "few") -> Iterator[Image]:
        """Every state that the medium may be in when the power goes now; some may come twice.

        Where several files have changes under way, all of them are taken together at their oldest and newest, and each
        of them by itself in every way.
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
        """One of those states, drawn by *random*: every file in a way of its own."""
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
