"""Lets a program write mapped containers with PyYAML, as plain ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def register_representers(dict_type: type, list_type: type, set_type: type) -> bool:
    """Make PyYAML's dumpers write these types, and types derived from them, as a plain map, seq and set: as their
    `copy()`.

    Does nothing and returns False if PyYAML has not been imported. Calling it again changes nothing.
    """
    yaml = sys.modules.get("yaml")
    if yaml is None or not hasattr(yaml, "SafeDumper"):
        return False
    # A dumper with representers of its own has a copy of the table, so each gets ours. It writes a copy of one moment:
    # between single elements, commits of other processes could come in between.
    safe = yaml.representer.SafeRepresenter
    kinds: list[tuple[Any, Callable[[Any, Any], Any]]] = [
        (dict_type, lambda dumper, node: safe.represent_dict(dumper, node.copy())),
        (list_type, lambda dumper, node: safe.represent_list(dumper, node.copy())),
        (set_type, lambda dumper, node: safe.represent_set(dumper, node.copy())),
    ]
    dumpers = [safe, yaml.representer.Representer, yaml.SafeDumper, yaml.Dumper]
    dumpers += [getattr(yaml, name) for name in ("CSafeDumper", "CDumper") if hasattr(yaml, name)]
    for dumper in dumpers:
        for kind, represent in kinds:
            dumper.add_multi_representer(kind, represent)
    return True
