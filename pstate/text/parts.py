"""What a document consists of, and where that stands in its text: noted by a reader, asked by who changes the text.

There are 120,000 parts in 1 MB, and an object for each would take longer than to read the text. So a reader adds what
it finds to one list, `WIDTH` items for each part, and `Parts` are the columns.
"""

from __future__ import annotations

from typing import Any

#: The byte order mark that may stand before a document.
BOM = b"\xef\xbb\xbf"

#: Kind, start, end, style, name and tagged, as the columns of `Parts` are called.
WIDTH = 6

#: The end of a block collection, which nobody looks for in the text.
END = ("end", 0, 0, "", None, False)

#: Aliases may make a document this much longer than it is: whatever its size, or so many times its size.
EXPANSION_FREE = 1_000_000
EXPANSION_FACTOR = 10

#: What a mapping with merge keys is made of: its own keys, and the mappings that are merged, later ones over earlier
#: ones, its own keys over all of them.
Merged = tuple[list[Any], list[dict[Any, Any]]]


class Parts:
    """The nodes of a document, and the ends of collections and of the document, by number in the order of the text.

    Offsets count characters.
    """

    __slots__ = ("ends", "is_quick", "kinds", "merges", "names", "starts", "styles", "tagged")

    def __init__(self, noted: list[Any], is_quick: bool, merges: dict[int, Merged] | None = None) -> None:
        #: noted by `block`, so there is no anchor or directive in the document, nor a marker but at its beginning
        self.is_quick = is_quick
        self.merges = merges or {}  #: by the number of the end of the mapping
        #: "scalar", "alias", "mapping", "sequence", "end", "document end"
        self.kinds: list[str] = noted[::WIDTH]
        #: of its anchor or tag, where it has one
        self.starts: list[int] = noted[1::WIDTH]
        #: of a collection: behind its beginning
        self.ends: list[int] = noted[2::WIDTH]
        #: of a scalar its quote, "|" or ">", or ""; of a collection "flow" or ""
        self.styles: list[str] = noted[3::WIDTH]
        #: of its anchor, or of the one that an alias names
        self.names: list[str | None] = noted[4::WIDTH]
        #: it has a tag that may make something else of it than what it looks like
        self.tagged: list[bool] = noted[5::WIDTH]

    def named(self, aliases: bool) -> list[tuple[int, str]]:
        """The anchors, or the *aliases*, by number and name."""
        if self.is_quick:
            return []
        return [
            (number, name)
            for number, name in enumerate(self.names)
            if name is not None and (self.kinds[number] == "alias") is aliases
        ]
