"""The parts of a document, and their places in its text: a reader notes them, for code that changes the text.

There are 120,000 parts in 1 MB, and an object for each would take longer than reading the text. So a reader appends
them to one list, `WIDTH` items for each part, and `Parts` has the columns.
"""

from __future__ import annotations

from typing import Any

#: The byte order mark that may precede a document.
BOM = b"\xef\xbb\xbf"

#: Kind, start, end, style, name and tagged: the columns of `Parts`.
WIDTH = 6

#: The end of a block collection, whose place in the text is never needed.
END = ("end", 0, 0, "", None, False)

#: Aliases may expand a document to so many characters in any case, or to so many times its size.
EXPANSION_FREE = 1_000_000
EXPANSION_FACTOR = 10

#: The parts of a mapping with merge keys: its own keys, and the mappings that are merged. Later ones win over earlier
#: ones, and its own keys over all of them.
Merged = tuple[list[Any], list[dict[Any, Any]]]


class Parts:
    """The nodes of a document, and the ends of collections and of the document, by number in the order of the text.

    Offsets count characters.
    """

    __slots__ = ("ends", "is_quick", "kinds", "merges", "names", "starts", "styles", "tagged")

    def __init__(self, noted: list[Any], is_quick: bool, merges: dict[int, Merged] | None = None) -> None:
        #: noted by `block`, so the document has no anchor or directive, and a marker at most at its beginning
        self.is_quick = is_quick
        self.merges = merges or {}  #: by the number of the end of the mapping
        #: "scalar", "alias", "mapping", "sequence", "end", "document end"
        self.kinds: list[str] = noted[::WIDTH]
        #: with its anchor or tag, if it has one
        self.starts: list[int] = noted[1::WIDTH]
        #: for a collection, the end of its beginning
        self.ends: list[int] = noted[2::WIDTH]
        #: for a scalar its quote, "|" or ">", or ""; for a collection "flow" or ""
        self.styles: list[str] = noted[3::WIDTH]
        #: of its anchor, or of the one that an alias names
        self.names: list[str | None] = noted[4::WIDTH]
        #: whether it has a tag that may give it another type than it seems to have
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
