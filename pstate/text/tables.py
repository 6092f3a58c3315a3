"""PyYAML: its tables, its constructors and its parsers.

Only this module imports it, in the first call that needs it, because that takes longer than opening a state.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaml.error import Mark as Mark


TAG = "tag:yaml.org,2002:"


class PyYaml:
    """The parts of PyYAML that we use. Copied once, so that later changes of its tables have no effect."""

    def __init__(self, pure: bool = False) -> None:
        import yaml
        import yaml.constructor
        import yaml.events
        import yaml.parser
        import yaml.reader
        import yaml.resolver
        import yaml.scanner

        self.Error = yaml.YAMLError
        self.MarkedError = yaml.MarkedYAMLError
        self.ReaderError = yaml.reader.ReaderError
        self.Scalar = yaml.events.ScalarEvent
        self.Alias = yaml.events.AliasEvent
        self.MappingStart, self.MappingEnd = yaml.events.MappingStartEvent, yaml.events.MappingEndEvent
        self.SequenceStart, self.SequenceEnd = yaml.events.SequenceStartEvent, yaml.events.SequenceEndEvent
        self.DocumentStart, self.DocumentEnd = yaml.events.DocumentStartEvent, yaml.events.DocumentEndEvent
        self.StreamEnd = yaml.events.StreamEndEvent
        self.not_printable: re.Pattern[str] = yaml.reader.Reader.NON_PRINTABLE

        table: dict[str | None, list[tuple[str, re.Pattern[str]]]] = yaml.resolver.Resolver.yaml_implicit_resolvers
        everywhere = table.get(None, [])
        self.resolvers = {
            first: [(tag, pattern.match) for tag, pattern in [*resolvers, *everywhere]]
            for first, resolvers in table.items()
            if first is not None
        }

        safe = yaml.constructor.SafeConstructor()

        def construct(method: Callable[[Any], Any], tag: str) -> Callable[[str], Any]:
            return lambda text: method(yaml.ScalarNode(tag, text))

        self.constructors: dict[str, Callable[[str], Any]] = {
            TAG + name: construct(getattr(safe, f"construct_yaml_{name}"), TAG + name)
            for name in ("null", "bool", "int", "float", "binary", "timestamp", "str")
        }

        c_parser: Callable[[bytes], Any] | None = None
        if not pure:
            try:
                from yaml._yaml import CParser  # yaml.cyaml has it too, but its stubs do not tell
            except ImportError:
                pass
            else:
                c_parser = CParser
        self.is_pure = c_parser is None

        class PureParser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
            def __init__(self, text: str) -> None:
                yaml.reader.Reader.__init__(self, text)
                yaml.scanner.Scanner.__init__(self)
                yaml.parser.Parser.__init__(self)

        # libyaml takes bytes; the pure parser would decode them once more.
        self.parser: Callable[[bytes, str], Any] = (
            (lambda content, text: PureParser(text)) if c_parser is None else (lambda content, text: c_parser(content))
        )


@functools.cache
def pyyaml() -> PyYaml:
    """PyYAML, with libyaml's parser if that is available."""
    return PyYaml()
