"""ini: sections of keys, as Python's configparser reads them, without interpolation.

Keys keep their case, and DEFAULT is a section like any other: what another program makes of it is not part of the file.
"""

from __future__ import annotations

import configparser
import io
from collections.abc import Iterator
from typing import Any

from pstate.cli.transfer import plain
from pstate.cli.transfer.faults import BadSource, bad_line

#: The name of a section that no file can have: it would be that of the defaults.
_NO_DEFAULTS = "\n"
_COMMENTS = ("#", ";")
_NEITHER = "not a section, a key, or the next line of a value"
_LEVELS = "an INI file has two levels: {section: {key: value}}"


def _parser() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(allow_no_value=True, default_section=_NO_DEFAULTS)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    return parser


def write(tree: dict[str, dict[str, Any]]) -> bytes:
    """*tree*, sections of scalars; a null is a key without a value."""
    parser = _parser()
    parser.read_dict(
        {
            section: {key: None if value is None else plain.text_of(value) for key, value in keys.items()}
            for section, keys in tree.items()
        }
    )
    file = io.StringIO()
    parser.write(file)
    return (file.getvalue().rstrip("\n") + "\n" if tree else "").encode()


def misfit(path: list[Any], value: Any) -> str | None:
    """Why *value* cannot be at *path*."""
    if (len(path) == 1 and type(value) is not dict) or (len(path) > 1 and type(value) is dict):
        return _LEVELS
    if type(value) is not str:
        return None
    if plain.value_of(value) != value:
        return f"an INI file has no quotes: this string would come back as {_kind(plain.value_of(value))}"
    lines = value.split("\n")
    if any(line != line.strip() for line in lines) or (len(lines) > 1 and not lines[-1]):
        return "an INI file does not keep white space at the beginning or the end of a value, or of a line in it"
    if any(line.startswith(_COMMENTS) for line in lines[1:]):
        return "in an INI file, a line of a value that begins with # or ; is a comment"
    return None


def _kind(value: Any) -> str:
    return {bool: "a boolean", int: "an integer", float: "a float"}.get(type(value), "a date")


def key_misfit(path: list[Any]) -> str | None:
    """Why the last key of *path* cannot be one."""
    key = path[-1]
    if len(path) == 1:
        is_name = key and "\n" not in key
        return None if is_name else "not a valid name for a section: it is empty, or has a newline in it"
    if not key or key != key.strip() or set("=:\n") & set(key) or key.startswith((*_COMMENTS, "[")):
        return (
            "not a valid key in an INI file: it is empty, has =, : or a newline in it, has white space around it, or "
            "begins with #, ; or ["
        )
    return None


def read(text: str, name: str, is_typed: bool) -> dict[str, dict[str, Any]]:
    """The sections in *text*. Values become numbers and so on if *is_typed*. Raises BadSource."""
    parser = _parser()
    line = 0

    def lines() -> Iterator[str]:
        nonlocal line
        for each in text.split("\n"):
            line += 1
            yield each

    try:
        parser.read_file(lines(), name)
    except configparser.DuplicateSectionError as error:
        raise bad_line(name, error.lineno or 1, f"the section {error.section!r} exists already") from None
    except configparser.DuplicateOptionError as error:
        what = f"the key {error.option!r} exists already in the section {error.section!r}"
        raise bad_line(name, error.lineno or 1, what) from None
    except configparser.MissingSectionHeaderError as error:
        raise bad_line(name, error.lineno, "a [section] must come first") from None
    except configparser.ParsingError as error:
        raise bad_line(name, error.errors[0][0], _NEITHER) from None
    except AttributeError:  # before Python 3.13: a further line of a value, below a key that has none
        raise bad_line(name, line, _NEITHER) from None
    except configparser.Error as error:
        raise BadSource(f"{name}: {error}. Nothing was changed. Correct the source.") from None
    return {
        section: {
            key: plain.value_of(value) if is_typed and value is not None else value
            for key, value in parser.items(section)
        }
        for section in parser.sections()
    }
