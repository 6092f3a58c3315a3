"""Draw the pictures of docs/architecture.md from the imports of the package: `make reference`.

A room is a module, or a folder that is drawn as one. It is on the floor above the highest room that it imports, so
every arrow points down. An import that others lead to as well has no arrow.
tests/test_layers.py checks the same imports, tests/test_architecture.py draws the pictures again.
"""

from __future__ import annotations

import ast
from functools import cache
from html import escape
from itertools import accumulate, combinations, pairwise
from pathlib import Path
from statistics import fmean

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "pstate"

WIDTH, MARGIN, LEFT, HEIGHT, GAP, LIFT, TIP, LETTER = 360, 8, 22, 26, 7, 52, 4, 7
STYLE = """\
.r{fill:#fff;stroke:#8a8a86}
.w{fill:#e4eefb;stroke:#4a78b5}
.a,.e{stroke:#8f8f8a;stroke-width:1;fill:none}
.e{marker-end:url(#tip)}
.t{fill:#8f8f8a}
text{font:12px sans-serif;fill:#1b1b1a;text-anchor:middle}
.f{font-size:11px;fill:#666;text-anchor:start}
"""

#: A room with its floor; or a gap on that floor, for the arrows to that room.
Node = tuple[str, int]


def name_of(file: Path) -> str:
    """The module in *file*, without `pstate.`."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(name: str) -> frozenset[str]:
    """What the module *name* imports, at whatever depth: modules of ours without `pstate.`, others as they are."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{name}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {each for each in inside if each.removeprefix("pstate.") in FILES}
            found |= modules or {node.module}
    found.discard("pstate")
    return frozenset(each.removeprefix("pstate.") for each in found)


def ours(name: str) -> set[str]:
    """The modules of the package that *name* imports."""
    return set(imports(name)) & set(FILES)


def room(name: str) -> str:
    """The folder that a module is in, or the module itself."""
    return name.partition(".")[0]


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """On which floor each room is: one above the highest that it imports. Fails where imports go in a circle."""
    found: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...]) -> int:
        assert name not in above, f"a circle: {' -> '.join([*above, name])}"
        if name not in found:
            found[name] = 1 + max((floor(below, (*above, name)) for below in arrows[name]), default=0)
        return found[name]

    for name in arrows:
        floor(name, ())
    return found


def house() -> dict[str, set[str]]:
    """The rooms of the package, a folder as one, and what each imports."""
    arrows: dict[str, set[str]] = {room(name): set() for name in FILES}
    for name in FILES:
        arrows[room(name)] |= {room(other) for other in ours(name)} - {room(name)}
    return arrows


def wing(folder: str) -> dict[str, set[str]]:
    """The modules of *folder*, and what each imports of it."""
    inside = [name for name in FILES if name.startswith(f"{folder}.")]
    short = {name: name.removeprefix(f"{folder}.") for name in inside}
    return {short[name]: {short[other] for other in ours(name) if other in short} for name in inside}


def nearest(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """*arrows* without those that others lead to as well: so the picture stays readable."""
    below: dict[str, set[str]] = {}

    def all_below(name: str) -> set[str]:
        if name not in below:
            below[name] = arrows[name].union(*(all_below(other) for other in arrows[name]))
        return below[name]

    return {
        name: {other for other in others if not any(other in all_below(between) for between in others)}
        for name, others in arrows.items()
    }


class Layout:
    """Where the rooms of a picture are, floor by floor, and which way the arrows between them take.

    An arrow over more than one floor goes through a gap in each row between. All arrows to one room share these gaps,
    so a picture has few lines, and none crosses a room.
    """

    def __init__(self, arrows: dict[str, set[str]]) -> None:
        floor = floors(arrows)
        self.top = max(floor.values())
        self.steps: list[tuple[Node, Node]] = []  #: from a node to one of the row below
        rows: dict[int, set[Node]] = {number: set() for number in range(1, self.top + 1)}
        for name, others in nearest(arrows).items():
            rows[floor[name]].add((name, floor[name]))
            for other in others:
                way = [
                    (name, floor[name]),
                    *((other, number) for number in range(floor[name] - 1, floor[other] - 1, -1)),
                ]
                for here in way[1:-1]:
                    rows[here[1]].add(here)
                self.steps += pairwise(way)
        self.steps = sorted(set(self.steps))
        self.rooms = {(name, number) for name, number in floor.items()}
        self.rows = [sorted(rows[number]) for number in range(self.top, 0, -1)]
        self.near: dict[Node, list[Node]] = {node: [] for row in self.rows for node in row}
        for above, below in self.steps:
            self.near[above].append(below)
            self.near[below].append(above)
        self._order()
        self.x = self._places()

    def width(self, node: Node) -> int:
        """Of a room, or of a gap."""
        return LETTER * len(node[0]) + 14 if node in self.rooms else 0

    def _order(self) -> None:
        """Sort each row by where the neighbours are, down and up again, and keep what has the fewest crossings."""
        best = self._crossings(), self.rows
        for sweep in range(24):
            self.rows = [list(row) for row in self.rows]
            for row in self.rows if sweep % 2 else reversed(self.rows):
                place = {node: (index + 0.5) / len(each) for each in self.rows for index, node in enumerate(each)}
                middle = {node: fmean(place[other] for other in [*self.near[node], node]) for node in row}
                row.sort(key=lambda node: (middle[node], node))
            best = min(best, (self._crossings(), self.rows), key=lambda found: found[0])
        self.rows = best[1]

    def _crossings(self) -> int:
        at = {node: index for row in self.rows for index, node in enumerate(row)}
        return sum(
            (at[a] - at[c]) * (at[b] - at[d]) < 0
            for (a, b), (c, d) in combinations(self.steps, 2)
            if row_of(a) == row_of(c)
        )

    def _places(self) -> dict[Node, int]:
        """The middle of each node: as near to its neighbours as the row has room for."""
        x = {node: WIDTH / 2 for row in self.rows for node in row}
        for sweep in range(60):
            for row in self.rows if sweep % 2 else reversed(self.rows):
                wanted = [fmean(x[other] for other in self.near[node] or [node]) for node in row]
                x.update(zip(row, self._spread(row, wanted), strict=True))
        left = min(x[node] - self.width(node) / 2 for node in x) - LEFT
        right = WIDTH - MARGIN - max(x[node] + self.width(node) / 2 for node in x)
        return {node: round(place + (right - left) / 2) for node, place in x.items()}

    def _spread(self, row: list[Node], wanted: list[float]) -> list[float]:
        """The places nearest to *wanted* at which the nodes of *row* do not overlap."""
        halves = [self.width(node) / 2 for node in row]
        offsets = [*accumulate((left + right + GAP for left, right in pairwise(halves)), initial=0.0)]
        runs: list[list[float]] = []  # of nodes that touch each other
        for want, offset in zip(wanted, offsets, strict=True):
            runs.append([want - offset])
            while len(runs) > 1 and fmean(runs[-2]) > fmean(runs[-1]):
                last = runs.pop()
                runs[-1] += last
        first, last = LEFT + halves[0], WIDTH - MARGIN - halves[-1] - offsets[-1]
        shifts = [min(max(fmean(run), first), last) for run in runs for _ in run]
        return [shift + offset for shift, offset in zip(shifts, offsets, strict=True)]


def row_of(node: Node) -> int:
    """The floor that a room, or a gap, is on."""
    return node[1]


def svg(arrows: dict[str, set[str]], wings: frozenset[str] = frozenset()) -> str:
    """The rooms of *arrows*, floor by floor, with the arrows to the next ones below. *wings* are tinted."""
    layout = Layout(arrows)
    y = {layout.top - index: MARGIN + index * LIFT for index in range(layout.top)}
    parts = [f'<text class="f" x="{MARGIN}" y="{top + 17}">{number}</text>' for number, top in y.items()]
    gaps = sorted({node for step in layout.steps for node in step} - layout.rooms)
    for node in gaps:
        parts.append(line(layout.x[node], y[row_of(node)], layout.x[node], y[row_of(node)] + HEIGHT))
    for above, below in layout.steps:
        is_end = below in layout.rooms
        start, end = y[row_of(above)] + HEIGHT, y[row_of(below)] - (TIP if is_end else 0)
        parts.append(line(layout.x[above], start, layout.x[below], end, "e" if is_end else "a"))
    for node in sorted(layout.rooms):
        name, width, top = node[0], layout.width(node), y[row_of(node)]
        kind = "w" if name in wings else "r"
        left = layout.x[node] - width // 2
        parts.append(f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{HEIGHT}" rx="4"/>')
        parts.append(f'<text x="{layout.x[node]}" y="{top + 17}">{escape(name)}</text>')
    height = y[1] + HEIGHT + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f"<style>\n{STYLE}</style>\n"
        '<marker id="tip" viewBox="0 0 6 6" refX="2" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        '<path class="t" d="M0,0 L6,3 L0,6 z"/></marker>\n'
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#f6f6f4"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def line(x1: int, y1: int, x2: int, y2: int, kind: str = "a") -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


WINGS = frozenset({"memory", "text", "file", "rows"})
PICTURES = {
    "house": lambda: svg(house(), WINGS),
    "file-wing": lambda: svg(wing("file")),
    "memory-wing": lambda: svg(wing("memory")),
    "text-wing": lambda: svg(wing("text")),
    "rows-wing": lambda: svg(wing("rows")),
}


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (DOCS / "pictures" / f"{name}.svg").write_text(draw(), encoding="utf-8")
