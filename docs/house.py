"""Draw the pictures of docs/architecture.md from the imports of the package: `make reference`.

A room is a module, or a folder that is drawn as one. It is on the floor above the highest room that it imports, so
every arrow points down. tests/test_layers.py checks the same imports, tests/test_architecture.py draws the pictures
again.
"""

from __future__ import annotations

import ast
from functools import cache
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "pstate"

WIDTH, MARGIN, HEIGHT, GAP, LIFT = 360, 8, 26, 6, 44
STYLE = """\
.r { fill: #ffffff; stroke: #8a8a86 }
.w { fill: #e4eefb; stroke: #4a78b5 }
.a { stroke: #b9b9b4; stroke-width: 1; fill: none }
text { font: 12px system-ui, sans-serif; fill: #1b1b1a; text-anchor: middle }
"""


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


def svg(arrows: dict[str, set[str]], wings: frozenset[str] = frozenset()) -> str:
    """The rooms of *arrows*, floor by floor, with the arrows to the next ones below. *wings* are tinted."""
    floor = floors(arrows)
    rows: list[list[str]] = []
    for number in range(max(floor.values()), 0, -1):
        names = sorted(name for name in arrows if floor[name] == number)
        rows += [names[start : start + 4] for start in range(0, len(names), 4)]
    places: dict[str, tuple[float, float, float]] = {}
    y = float(MARGIN)
    for row in rows:
        width = (WIDTH - 2 * MARGIN - GAP * 3) / 4 if len(row) > 2 else 150.0
        left = (WIDTH - len(row) * width - (len(row) - 1) * GAP) / 2
        for index, name in enumerate(row):
            places[name] = left + index * (width + GAP), y, width
        y += LIFT
    parts = [
        f'<line class="a" x1="{places[name][0] + places[name][2] / 2:.0f}" y1="{places[name][1] + HEIGHT:.0f}" '
        f'x2="{places[other][0] + places[other][2] / 2:.0f}" y2="{places[other][1]:.0f}"/>'
        for name, others in sorted(nearest(arrows).items())
        for other in sorted(others)
    ]
    for name, (x, top, width) in places.items():
        kind = "w" if name in wings else "r"
        parts.append(f'<rect class="{kind}" x="{x:.0f}" y="{top:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="4"/>')
        parts.append(f'<text x="{x + width / 2:.0f}" y="{top + 17:.0f}">{escape(name)}</text>')
    height = y - LIFT + HEIGHT + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}">\n<style>\n{STYLE}</style>\n'
        f'<rect width="{WIDTH}" height="{height:.0f}" rx="6" fill="#f6f6f4"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


WINGS = frozenset({"memory", "text", "file"})
PICTURES = {
    "house": lambda: svg(house(), WINGS),
    "file-wing": lambda: svg(wing("file")),
    "memory-wing": lambda: svg(wing("memory")),
    "text-wing": lambda: svg(wing("text")),
}


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (DOCS / "pictures" / f"{name}.svg").write_text(draw(), encoding="utf-8")
