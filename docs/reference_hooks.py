"""What the Python reference does with the docstrings that it shows.

- The comment of an attribute on its line, ``#: ...``, is the docstring of the attribute.
- The name of an error is a link to its entry, in docstrings and in the text of the page. So is a name in backticks that
  has an entry, such as ``PersistedState.watch``; the name of a method alone is a link in the docstrings of its class.

It is an extension of griffe, which reads the source for mkdocstrings, and hooks of mkdocs. An error without a link is a
warning, which `make docs` takes for an error.
"""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path
from typing import Any

from griffe import Attribute, Class, Docstring, Extension, Function, Module, Object

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference.md"
ERRORS = frozenset(
    node.name
    for node in ast.parse((ROOT / "pstate" / "errors.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef)
)

_COMMENT = re.compile(r"#: (.+)$")
_ENTRY = re.compile(r"^::: (?P<name>[\w.]+)\n(?:    options:\n(?P<options>(?:      .*\n)*))?", re.M)
_MEMBERS = re.compile(r"members: \[(?P<names>[\w, ]*)\]")
#: What is not to be changed (code, links, headings, the lines of entries), code in backticks, and names of errors.
_PART = re.compile(
    r"(?P<kept>^```(?s:.*?)^```$|^(?: {4,}|#|:::).*$|``(?s:.+?)``|\[[^\[\]]*\][\[(][^\])]*[\])])"
    r"|`(?P<code>[^`\n]+)`"
    rf"|\b(?P<error>{'|'.join(sorted(ERRORS))})\b",
    re.M,
)
_LINKED = re.compile(r"<(autoref|h\d|pre|nav)\b.*?</\1>", re.S)

logger = logging.getLogger("mkdocs.hooks.reference")


def entries(page: str) -> dict[str, list[str]]:
    """The names that *page* has entries of, each with those of its members that have entries too."""
    found = {}
    for entry in _ENTRY.finditer(page):
        members = _MEMBERS.search(entry["options"] or "")
        found[entry["name"]] = members["names"].split(", ") if members else []
    return found


def targets(page: str) -> dict[str, str]:
    """What may be written in backticks on *page* or in a docstring, and the entry that it means."""
    found = {}
    for name, members in entries(page).items():
        short = name.rpartition(".")[2]
        found |= {name: name, short: name, f"pstate.{short}": name}
        found |= {f"{short}.{member}": f"{name}.{member}" for member in members}
    del found["errors"]  # the module: its classes are the entries
    return found | {name: f"pstate.errors.{name}" for name in ERRORS}


TARGETS = targets(PAGE.read_text(encoding="utf-8"))


def linked(text: str, around: str = "") -> str:
    """*text*, in Markdown, with links to entries; *around* is the class whose docstring it is, or that of a method."""

    def replaced(part: re.Match[str]) -> str:
        if part["kept"]:
            return part[0]
        if part["error"]:
            return f"[{part[0]}][{TARGETS[part[0]]}]"
        name = part["code"].removesuffix("()")
        target = TARGETS.get(f"{around}.{name}") or TARGETS.get(name)
        return f"[{part[0]}][{target}]" if target else part[0]

    return _PART.sub(replaced, text)


def unlinked(html: str) -> set[str]:
    """The errors that *html* names without a link."""
    return set(re.findall(rf"\b(?:{'|'.join(ERRORS)})\b", _LINKED.sub("", html)))


class Docstrings(Extension):
    """Completes the docstrings as the module says."""

    def on_attribute(self, *, attr: Attribute, **_: Any) -> None:
        if attr.docstring is not None or attr.lineno is None:
            return
        lines = attr.lines_collection[attr.filepath]
        found = _COMMENT.search(lines[attr.lineno - 1])
        if found:
            attr.docstring = Docstring(found[1], parent=attr)

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        _link(pkg)


def _link(item: Object) -> None:
    if item.docstring is not None:
        owner = item if isinstance(item, Class) else item.parent if isinstance(item, Function | Attribute) else None
        item.docstring.value = linked(item.docstring.value, owner.name if isinstance(owner, Class) else "")
    for member in item.members.values():
        if isinstance(member, Object):  # no alias, whose target is met where it is defined
            _link(member)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return linked(markdown) if page.file.src_uri == PAGE.name else markdown


def on_page_content(html: str, page: Any, **_: Any) -> str:
    if page.file.src_uri == PAGE.name and (missing := unlinked(html)):
        logger.warning("%s: no link leads from these names to their errors: %s", PAGE.name, ", ".join(sorted(missing)))
    return html
