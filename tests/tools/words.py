"""Finds the idioms that the house style replaces, in pages, messages, docstrings and comments.

``python -m tools.words [--count] [PATH ...]`` (a step of `make lint`) prints each as ``file:line``, with what to write
instead. Without a path, it reads the `paths` of ``[tool.words]`` in pyproject.toml, except for those in `later`. The
idioms are listed there.

Prose only: a variable that is called like an idiom does not count, nor does a string without a space in it, nor what
is between backticks. In a page, the comments and strings of a fenced Python block count, and other blocks do not: what
a console block shows is the output of code that is read itself.

No checker of prose from the index reads the strings of Python and of C, where messages are. vale and textlint read
comments at most, vale needs a program that its package downloads at the first start, and proselint takes no rules of
one's own.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tokenize
import tomllib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

#: A piece of prose: the number of its first line, and its text.
Piece = tuple[int, str]


class Idiom(NamedTuple):
    """*pattern* has the group `idiom`, which is empty where one of the exceptions matched."""

    name: str
    pattern: re.Pattern[str]
    instead: str


class Found(NamedTuple):
    """One idiom at one place."""

    path: str
    line: int
    said: str
    idiom: Idiom

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: “{self.said}”: {self.idiom.instead}"


#: Where a sentence begins. Pieces are joined by single spaces before they are searched.
START = r"(?:\A|(?<=[.!?:;] ))"


def settings() -> dict:
    """The table ``[tool.words]``."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["words"]


def idioms() -> list[Idiom]:
    """The idioms of the table. ``<`` at the beginning of a pattern is the beginning of a sentence."""
    found = []
    for name, rule in settings()["idioms"].items():
        pattern = rule["find"]
        if pattern.startswith("<"):
            pattern = START + pattern[1:]
        but = f"(?:{rule['but']})|" if "but" in rule else ""
        found.append(Idiom(name, re.compile(f"{but}(?P<idiom>{pattern})", re.IGNORECASE), rule["instead"]))
    return found


def _is_one_text(between: str) -> bool:
    return not between.strip() and not re.search(r"\n[ \t]*\n", between)


def _joined(parts: Iterable[tuple[str, int, int, str]], source: str) -> Iterator[Piece]:
    """Prose of the *parts* (kind, start, end, text) of a program.

    Neighbours of one kind, such as the lines of a comment or the strings of one message, are one piece.
    """
    kind, begun, end, text = "", 0, 0, ""
    for new_kind, start, new_end, new_text in parts:
        if kind == new_kind and _is_one_text(source[end:start]):
            text += "\n" * source.count("\n", end, start) + new_text
        else:
            yield from _prose(kind, source.count("\n", 0, begun) + 1, text)
            kind, begun, text = new_kind, start, new_text
        end = new_end
    yield from _prose(kind, source.count("\n", 0, begun) + 1, text)


def _prose(kind: str, line: int, text: str) -> Iterator[Piece]:
    if kind == "string" and " " not in text.strip():
        return
    yield from paragraphs(line, text)


def paragraphs(line: int, text: str) -> Iterator[Piece]:
    """The paragraphs, items and headings of *text*, whose first line is number *line*."""
    begun, lines = line, list[str]()
    for number, words in enumerate(text.split("\n"), line):
        if not words.strip() or re.match(r"\s*([-*+>#|]|\d+\.)\s", words):
            yield begun, "\n".join(lines)
            begun, lines = number, []
        if words.lstrip().startswith("|"):  # each cell of a table begins a sentence
            for cell in words.split("|"):
                yield number, cell
            begun, lines = number + 1, []
        else:
            lines.append(words)
    yield begun, "\n".join(lines)


def of_python(source: str) -> Iterator[Piece]:
    """The comments and strings of Python code; nothing of code that is not complete."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    parts, depth, begun = [], 0, 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            name = tokenize.tok_name[token.type]
            start, end = (starts[row - 1] + column for row, column in (token.start, token.end))
            if name == "COMMENT":
                parts.append(("comment", start, end, token.string.lstrip("#:")))
            elif name.endswith("STRING_START"):  # Python 3.12 and newer read an f-string piece by piece
                depth, begun = depth + 1, begun if depth else start
            elif name.endswith("STRING_END"):
                depth -= 1
                if not depth:
                    parts.append(("string", begun, end, _content(source[begun:end])))
            elif name == "STRING" and not depth:
                parts.append(("string", start, end, _content(token.string)))
    except (tokenize.TokenError, SyntaxError):
        return
    yield from _joined(parts, source)


def _content(literal: str) -> str:
    """What a string literal of Python says, with the lines that it has in the source."""
    prefix, _quote, text = re.match(r"""(?s)(\w*)('{3}|"{3}|'|")(.*)\2\Z""", literal).groups()
    if "f" in prefix.lower():
        text = re.sub(r"\{[^{}]*\}", " X ", text)
    if "r" not in prefix.lower():
        text = re.sub(r"\\n", " . ", text)
    return text


C = re.compile(r'(?s)//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'')


def of_c(source: str) -> Iterator[Piece]:
    """The comments and strings of C code."""
    parts = []
    for match in C.finditer(source):
        text = match[0]
        if text.startswith("/"):
            text = re.sub(r"(?m)^[ \t]*\*(?!/)", "", text[2:].removesuffix("*/"))
            parts.append(("comment", *match.span(), text))
        elif text.startswith('"'):
            parts.append(("string", *match.span(), text[1:-1].replace("\\n", " . ")))
    yield from _joined(parts, source)


FENCE = re.compile(
    r"(?ms)^(?P<indent>[ \t]*)(?P<fence>```+)[ \t]*(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)(?P=fence)"
)


def of_markdown(source: str) -> Iterator[Piece]:
    """The sentences of a page, and the comments and strings of its fenced Python blocks."""

    def emptied(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    for match in FENCE.finditer(source):
        if match["kind"] == "python":
            first = source.count("\n", 0, match.start("body"))
            body = "\n".join(line.removeprefix(match["indent"]) for line in match["body"].split("\n"))
            for line, text in of_python(body):
                yield first + line, text
    text = FENCE.sub(emptied, source)
    text = re.sub(r"(?s)<!--.*?-->", emptied, text)
    text = re.sub(r"\]\([^)\s]*\)", "]", text)
    yield from paragraphs(1, re.sub(r"[\[\]]|</?\w[^>]*>", "", text))


READERS = {".md": of_markdown, ".py": of_python, ".pyi": of_python, ".c": of_c}


def search(path: Path, name: str, rules: list[Idiom]) -> Iterator[Found]:
    """The idioms in the file at *path*, which is called *name* in what is printed."""
    for first, text in READERS[path.suffix](path.read_text(encoding="utf-8")):
        words, starts, lines, at = [], [], [], 0
        text = re.sub(r"(`+)(.+?)\1", lambda quoted: "X" + "\n" * quoted[0].count("\n"), text, flags=re.DOTALL)
        for line, part in enumerate(text.split("\n"), first):
            for word in part.replace("*", "").split():
                words.append(word)
                starts.append(at)
                lines.append(line)
                at += len(word) + 1
        sentence = " ".join(words)
        for rule in rules:
            for match in rule.pattern.finditer(sentence):
                if match["idiom"]:
                    yield Found(name, lines[bisect_right(starts, match.start("idiom")) - 1], match["idiom"], rule)


def files(paths: Iterable[Path], left_out: Iterable[str]) -> Iterator[Path]:
    """Those of *paths* that can be read, and what is in their folders."""
    skipped = {ROOT / path for path in left_out}
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in READERS and not {file.resolve(), *file.resolve().parents} & skipped:
                yield file


def main(arguments: list[str] | None = None) -> int:
    """Print what is found; 1 if there is anything."""
    parser = argparse.ArgumentParser(prog="tools.words", description="Find the idioms that the house style replaces.")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files and folders to read")
    parser.add_argument("--count", action="store_true", help="print how often each idiom occurs, instead of where")
    options = parser.parse_args(arguments)
    table, rules = settings(), idioms()
    missing = [path for path in options.paths if not path.exists()]
    if missing:
        parser.error(f"{missing[0]} does not exist.")
    named = options.paths or [ROOT / path for path in table["paths"]]
    left_out = table["except"] if options.paths else [*table["except"], *table.get("later", [])]
    found = [each for file in files(named, left_out) for each in search(file, _shown(file), rules)]
    if options.count:
        counts = Counter(each.idiom.name for each in found)
        for rule in rules:
            print(f"{counts[rule.name]:6} {rule.name}")
        print(f"{len(found):6} in all")
    else:
        print(*sorted(found), sep="\n", end="\n" if found else "")
    return 1 if found else 0


def _shown(file: Path) -> str:
    return str(file.resolve().relative_to(Path.cwd())) if file.resolve().is_relative_to(Path.cwd()) else str(file)


if __name__ == "__main__":
    sys.exit(main())
