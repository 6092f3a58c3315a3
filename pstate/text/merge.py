"""Merges a person's edit of a document with the commits of programs meanwhile, value by value.

The edit wins if both changed the same place; everything else of both sides is kept. Every engine merges in this way.
"""

from __future__ import annotations

from typing import Any

from pstate.values import place_text, same, shown


def merge(old: Any, edited: Any, ours: Any) -> tuple[Any, list[str]]:
    """The state with the changes of both *edited* and *ours* to their common ancestor *old*.

    Returns it with one sentence for each of our values that gave way to the edit. Merging the result again changes
    nothing, so any number of processes may notice the same edit.
    """
    lost: list[str] = []
    return _merge(old, edited, ours, [], lost), lost


def _merge(old: Any, edited: Any, ours: Any, path: list[Any], lost: list[str]) -> Any:
    if same(edited, old):
        return ours
    if same(ours, old) or same(ours, edited):
        return edited
    if type(old) is type(edited) is type(ours):
        if type(old) is dict:
            return _merge_dicts(old, edited, ours, path, lost)
        if type(old) is set:
            return (ours - (old - edited)) | (edited - old)
        if type(old) is list and same(ours[: len(old)], old):
            # We only appended, as most programs do to a list in a file that people edit.
            return edited + ours[len(old) :]
    lost.append(f"{place_text(path)} was {shown(ours)}")
    return edited


def _merge_dicts(
    old: dict[Any, Any], edited: dict[Any, Any], ours: dict[Any, Any], path: list[Any], lost: list[str]
) -> dict[Any, Any]:
    merged: dict[Any, Any] = {}
    for key, value in edited.items():
        here = [*path, key]
        if key in ours:
            if key in old:
                merged[key] = _merge(old[key], value, ours[key], here, lost)
            elif type(value) is dict and type(ours[key]) is dict:
                merged[key] = _merge({}, value, ours[key], here, lost)
            else:
                if not same(value, ours[key]):
                    lost.append(f"{place_text(here)} was {shown(ours[key])}")
                merged[key] = value
        elif key not in old:
            merged[key] = value
        elif not same(value, old[key]):
            lost.append(f"{place_text(here)} had been deleted")
            merged[key] = value
    for key, value in ours.items():
        if key in edited:
            continue
        if key not in old:
            merged[key] = value
        elif not same(value, old[key]):
            lost.append(f"{place_text([*path, key])} was {shown(value)}")
    return merged
