"""The comments that a person puts into a document, and whether they are still where they belong.

A comment belongs to the line that it is on, or directly above (docs/format.md). Each is written once, and no
program here removes what one belongs to, so each must occur once, wherever its line has gone.
"""

from __future__ import annotations

import re
from random import Random

from stress.real.editors import Changes

#: How many comments may be above one line.
_MOST = 5


class Comments:
    """What a person has written about some lines, which are known by how they begin."""

    def __init__(self, header: str, footer: str, lines: list[str]) -> None:
        self.header = header  #: how the document begins and ends: independent comments
        self.footer = footer
        self.above: dict[str, list[str]] = {line: [] for line in lines}
        self.trailing: dict[str, str] = dict.fromkeys(lines, "")

    def change(self, dice: Random, line: str, value: str = "") -> Changes:
        """What an editor does: *value* after *line*, and a comment above it, another one on it, both, or none."""
        above, number = self.above[line], dice.randrange(10**9)
        text = f"{line} {value}".rstrip()
        if dice.random() < 0.6:
            self.trailing[line] = f"# trailing {number}"
        if self.trailing[line]:
            text = f"{text}  {self.trailing[line]}"
        if dice.random() < 0.6 and len(above) < _MOST:
            above.append(f"# above {number}")
            text = f"{_indent(line)}{above[-1]}\n{text}"
        return {line: text + "\n"}

    def __len__(self) -> int:
        return sum(map(len, self.above.values())) + sum(map(bool, self.trailing.values()))

    def problems(self, document: str) -> list[str]:
        """What is wrong with comments, in sentences; none, if all are where they belong."""
        found = []
        if not document.startswith(self.header):
            found.append(f"the document begins with {document[:100]!r}")
        if not document.endswith(self.footer):
            found.append(f"the document ends with {document[-100:]!r}")
        for line, above in self.above.items():
            trailing = self.trailing[line]
            text = "\n".join(f"{_indent(line)}{comment}" for comment in above) + "\n" * bool(above)
            value = r"(?: [^\s#]+)?" if line.endswith(":") else ""
            pattern = rf"(?m)^{re.escape(text + line)}{value}{re.escape('  ' + trailing) if trailing else ''}$"
            if len(re.findall(pattern, document)) != 1:
                found.append(f"{text}{line} {trailing} does not occur once")
            for comment in filter(None, [*above, trailing]):
                if len(re.findall(rf"(?m){comment}$", document)) > 1:
                    found.append(f"{comment} occurs twice")
        return found


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))]
