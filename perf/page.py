"""A place for measurements in a document: what is between two marks is written by a program."""

from __future__ import annotations


def parted(page: str, begin: str, end: str) -> tuple[str, str, str]:
    """The parts of *page* before, between and after *begin* and *end*. Raises ValueError if one is missing."""
    before, mark, rest = page.partition(begin)
    between, mark_after, after = rest.partition(end)
    if not mark or not mark_after:
        raise ValueError(f"the marks {begin} and {end} are missing")
    return before, between, after
