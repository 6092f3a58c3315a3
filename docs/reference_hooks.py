"""For mkdocstrings: what stands behind an attribute as `#: ...` is its docstring. It reads the source by griffe."""

from __future__ import annotations

import re
from typing import Any

from griffe import Attribute, Docstring, Extension

COMMENT = re.compile(r"#: (.+)$")


class AttributeComments(Extension):
    """Gives each attribute without a docstring the comment of its line."""

    def on_attribute(self, *, attr: Attribute, **_: Any) -> None:
        if attr.docstring is not None or attr.lineno is None:
            return
        lines = attr.lines_collection[attr.filepath]
        found = COMMENT.search(lines[attr.lineno - 1])
        if found:
            attr.docstring = Docstring(found[1], parent=attr)
