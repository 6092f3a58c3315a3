"""Which Python values can be stored: the one walk that copies a value in, or refuses it and names a replacement.

A *plain tree* is what the rest of the package works with: exact builtin types only (None, bool, int, float, str, bytes,
date, datetime, dict, list, set), no object in two places, at most `MAX_DEPTH` levels deep. `take` makes one from what a
program assigns. The modules in `text` decide how a value is written in the file, and the containers where it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, date, datetime, timedelta, timezone
from json import dumps
from keyword import iskeyword
from types import NoneType
from typing import Any, TypeAlias

from pstate.errors import PStateError, UnsupportedTypeError, UnsupportedValueError

Destination: TypeAlias = str | Callable[[], str]
"""The place that a value is stored at, as a program writes it; called only for a message."""

MAX_DEPTH = 100
"""Levels of nesting: the state itself is the first, a container in it the second, and so on."""

SCALARS: frozenset[type] = frozenset({NoneType, bool, int, float, str, bytes, date, datetime})
"""The exact types of the values that hold no others."""

FAST: frozenset[type] = frozenset({NoneType, bool, int, float, bytes, date})
"""The exact types whose every instance can be stored without a further check."""

FAST_KEYS: frozenset[type] = FAST - {float}
"""The same for dict keys and set members, where a NaN could never be found again."""

COPIES: dict[type, Callable[[Any], Any]] = {}
"""For each kind of mapped container, the function that makes a plain, consistent copy. `memory.nodes` fills it."""

_BUILTINS: frozenset[type] = frozenset({dict, list, tuple, set, frozenset})
_MINUTE = timedelta(minutes=1)


def take(value: Any, place: Destination, depth: int = 0) -> Any:
    """Return *value* as a plain tree of its own, or refuse all of it.

    *place* names where the value is stored, and is called only for a refusal. *depth* is the number of containers
    around that place; the state itself counts, so it is 1 for ``state.x``. Raises UnsupportedTypeError for a type that
    cannot be stored, and UnsupportedValueError for such a value: cyclic, too deep, a lone surrogate, a NaN as key.
    """
    kind = type(value)
    if kind in FAST or (kind is str and value.isascii()):
        return value
    try:
        return _copy(value, depth, set())
    except _Refused as refused:
        error, path = refused.error, refused.path[::-1]
    raise _located(error, place, path)


def check_key(key: Any, place: Destination) -> Any:
    """Return *key* as it is stored in a dict or a set at *place*. Raises the errors of `take`."""
    kind = type(key)
    if kind in FAST_KEYS or (kind is str and key.isascii()):
        return key
    try:
        return _key(key, "key")
    except _Refused as refused:
        error = refused.error
    raise _located(error, place, [])


def check_member(member: Any, place: Destination) -> Any:
    """`check_key` for a member of a set. Only the message differs."""
    kind = type(member)
    if kind in FAST_KEYS or (kind is str and member.isascii()):
        return member
    try:
        return _key(member, "member")
    except _Refused as refused:
        error = refused.error
    raise _located(error, place, [])


def place_text(path: Iterable[Any], root: str = "state") -> str:
    """Write *path* as a program would: ``state.jobs[3]["not an identifier"].at``."""
    parts = [root]
    for key in path:
        if type(key) is not str:
            parts.append(f"[{shown(key)}]")
        elif key.isidentifier() and not key.startswith("_") and not iskeyword(key) and not hasattr(dict, key):
            parts.append(f".{key}")
        else:
            parts.append(f"[{dumps(key, ensure_ascii=False)}]")
    return "".join(parts)


def shown(value: Any) -> str:
    """`repr` for a message, also for integers that Python refuses to write in decimal, and for values with such."""
    try:
        return repr(value)
    except ValueError:
        return hex(value) if isinstance(value, int) else f"a {type(value).__name__} with integers too long to show"


def same(a: Any, b: Any) -> bool:
    """Whether two plain trees are equal and of equal types throughout.

    Unlike ``==``: NaN is the same as NaN, but -0.0 differs from 0.0, True from 1, and noon UTC from one o'clock in
    Paris. The order of dict keys does not matter. A mapped container counts as its builtin kind.
    """
    kind = _builtin(a)
    if kind is not _builtin(b):
        return False
    if kind is dict:
        if len(a) != len(b):
            return False
        others = {identity(key): item for key, item in b.items()}
        for key, item in a.items():
            key_identity = identity(key)
            if key_identity not in others or not same(item, others[key_identity]):
                return False
        return True
    if kind is list:
        return len(a) == len(b) and all(map(same, a, b))
    if kind is set:
        return {identity(member) for member in a} == {identity(member) for member in b}
    if kind is float or kind is datetime:
        return bool(identity(a) == identity(b))
    return bool(a == b)


def ordered(members: Iterable[Any]) -> list[Any]:
    """The members of a set, always in the same order: by type, then by value."""
    groups: dict[str, list[Any]] = {}
    for member in members:
        groups.setdefault(type(member).__name__, []).append(member)
    ordered: list[Any] = []
    for name in sorted(groups):
        # Aware and naive datetimes do not compare with each other.
        ordered += sorted(groups[name], key=datetime.isoformat if name == "datetime" else None)
    return ordered


def unchanged_ends(old: Any, new: Any, alike: Callable[[Any, Any], bool] = same) -> tuple[int, int]:
    """How many elements at the beginning of two lists are *alike*, and how many of the rest at their ends."""
    shorter = min(len(old), len(new))
    first = last = 0
    while first < shorter and alike(old[first], new[first]):
        first += 1
    while last < shorter - first and alike(old[-1 - last], new[-1 - last]):
        last += 1
    return first, last


def _builtin(value: Any) -> type:
    kind = type(value)
    if kind in SCALARS:
        return kind
    return next((base for base in (dict, list, set) if isinstance(value, base)), kind)


def identity(scalar: Any) -> Hashable:
    """An object that is equal for two scalars if and only if `same` holds for them."""
    if type(scalar) is float:
        return float, repr(scalar)
    if type(scalar) is datetime:
        return datetime, scalar.replace(tzinfo=None), scalar.utcoffset()
    return type(scalar), scalar


class _Refused(Exception):
    """A refusal on its way up. Each level adds its key to the path, so that only a refusal costs time."""

    def __init__(self, kind: type[PStateError], problem: str) -> None:
        self.error = kind, problem
        self.path: list[Any] = []


def _located(error: tuple[type[PStateError], str], place: Destination, path: list[Any]) -> PStateError:
    kind, problem = error
    where = place_text(path, root=place if isinstance(place, str) else place())
    return kind(f"{where}: {problem} Nothing was changed.", place=where)


def _copy(value: Any, depth: int, around: set[int]) -> Any:
    kind = type(value)
    if kind in FAST:
        return value
    if kind is str:
        return value if value.isascii() else _text(value, "str")
    if kind is datetime:
        return _moment(value)
    if not isinstance(value, (dict, list, tuple, set, frozenset)):
        raise _unsupported(value, "value")
    if depth >= MAX_DEPTH:
        raise _Refused(
            UnsupportedValueError,
            f"nested too deep: a state has at most {MAX_DEPTH} levels. Store a flatter structure.",
        )
    if id(value) in around:
        raise _Refused(
            UnsupportedValueError, "the value contains itself (it is cyclic). Store a key or an index instead."
        )
    if kind not in _BUILTINS:
        for base in kind.__mro__:
            if base in COPIES:
                value = COPIES[base](value)  # other threads could change it during a walk from here
                break
    around.add(id(value))
    copied: Any
    # Each copies first: another thread may change the container meanwhile.
    if isinstance(value, dict):
        pairs = list(value.items())  # as a subclass has them: OrderedDict's order
        if _clear([key for key, _ in pairs], FAST_KEYS) and _clear([item for _, item in pairs], FAST):
            copied = dict(pairs)
        else:
            copied = {}
            for key, item in pairs:
                key = _key(key, "key")
                try:
                    copied[key] = _copy(item, depth + 1, around)
                except _Refused as refused:
                    refused.path.append(key)
                    raise
    elif isinstance(value, (list, tuple)):
        copied = list(value)
        if not _clear(copied, FAST):
            for index, item in enumerate(copied):
                try:
                    copied[index] = _copy(item, depth + 1, around)
                except _Refused as refused:
                    refused.path.append(index)
                    raise
    else:
        members = list(value)
        copied = set(members if _clear(members, FAST_KEYS) else [_key(member, "member") for member in members])
    around.discard(id(value))
    return copied


def _clear(items: list[Any], fast: frozenset[type]) -> bool:
    """Whether each item may stay as it is, found by a quick check of all of them together."""
    kinds = set(map(type, items))
    if str in kinds:
        texts = items if len(kinds) == 1 else [item for item in items if type(item) is str]
        if not "".join(texts).isascii():
            return False
        kinds.discard(str)
    return kinds <= fast


def _key(key: Any, role: str) -> Any:
    kind = type(key)
    if kind in FAST_KEYS:
        return key
    if kind is str:
        return key if key.isascii() else _text(key, role)
    if kind is float:
        if key != key:
            raise _Refused(
                UnsupportedValueError,
                f"NaN cannot be a {role}: it is not equal to itself, so it would never be found. Use None or a string.",
            )
        return key
    if kind is datetime:
        return _moment(key)
    raise _unsupported(key, role)


def _text(text: str, role: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Refused(
            UnsupportedValueError,
            f"the {role} {text[:40]!r} holds a lone surrogate (at {error.start}), which no UTF-8 file can hold. "
            'Store text.encode("utf-8", "surrogateescape"), or os.fsencode(name) for a file name.',
        ) from None
    return text


def _moment(moment: datetime) -> datetime:
    """The same moment in a form that YAML has: without an offset, or with a fixed one of whole minutes."""
    if moment.tzinfo is None:
        return moment if moment.fold == 0 else moment.replace(fold=0)
    offset = moment.utcoffset()
    if offset is None:
        return moment.replace(tzinfo=None, fold=0)
    if offset % _MINUTE:
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            raise _Refused(
                UnsupportedValueError,
                f"{moment!r} has an offset with seconds, and in UTC it would be outside the years 1 to 9999.",
            ) from None
    return moment.replace(tzinfo=timezone(offset), fold=0)


# What to store instead, by the name of the type or of a base, so that no library is imported to recognise its types.
_INSTEAD = {
    "numpy.longdouble": "float({0})",
    "numpy.complexfloating": "[float({0}.real), float({0}.imag)]",
    "numpy.datetime64": '{0}.astype("datetime64[us]").item(), or {0}.item() for a day',  # nanoseconds would be an int
    "numpy.timedelta64": 'float({0} / numpy.timedelta64(1, "s"))',
    "numpy.generic": "{0}.item()",
    "pandas.Timestamp": "{0}.to_pydatetime()",
    "pandas.NaTType": "None",
    "pandas.NAType": "None",
    "pandas.DataFrame": '{0}.to_dict("records")',
    "collections.UserString": "str({0})",
    "pydantic._BaseUrl": "str({0})",
    "pydantic_core.Url": "str({0})",
    "pathlib.PurePath": "str({0})",
    "os.PathLike": "os.fspath({0})",
    "decimal.Decimal": "str({0})",
    "fractions.Fraction": "str({0})",
    "uuid.UUID": "str({0})",
    "ipaddress._IPAddressBase": "str({0})",
    "re.Pattern": "{0}.pattern",
    "datetime.time": "{0}.isoformat()",
    "datetime.timedelta": "{0}.total_seconds()",
    "datetime.tzinfo": "str({0})",
    "builtins.bytearray": "bytes({0})",
    "builtins.memoryview": "bytes({0})",
    "array.array": "list({0})",
    "builtins.complex": "[{0}.real, {0}.imag]",
    "builtins.BaseException": "str({0})",
    "builtins.type": "{0}.__qualname__",
    "builtins.function": "{0}.__qualname__, and call the function on what you read",
    "datetime.datetime": "datetime.datetime.fromisoformat({0}.isoformat())",
    "datetime.date": "datetime.date.fromisoformat({0}.isoformat())",
}
# The same by an attribute that a library gives to all its classes. It is checked before the methods of the object: a
# pydantic model is iterable, but list(value) would be pairs.
_INSTEAD_BY_MARK = {
    "model_dump": 'value.model_dump(), or value.model_dump(mode="json") for types that YAML lacks',  # pydantic
    "__fields_set__": "value.dict()",  # pydantic 1
    "__dataclass_fields__": "dataclasses.asdict(value)",
    "__attrs_attrs__": "attrs.asdict(value)",
    "__struct_fields__": "msgspec.to_builtins(value)",
    "tolist": "value.tolist()",  # what looks like an array of numpy's
    "__fspath__": "os.fspath(value)",
}
_PLAIN = "None, bool, int, float, str, bytes, date, datetime, dict, list or set"


def _unsupported(value: Any, role: str) -> _Refused:
    kind = type(value)
    name = _name(kind)
    if role == "value":
        return _Refused(UnsupportedTypeError, f"{name} cannot be stored{_reason(kind)}. Store {_instead(value, role)}.")
    container = "dict key" if role == "key" else "set member"
    return _Refused(UnsupportedTypeError, f"{name} cannot be a {container}. Use {_instead(value, role)}.")


def _name(kind: type) -> str:
    module = kind.__module__.replace("pathlib._local", "pathlib")
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _reason(kind: type) -> str:
    for base in kind.__mro__[1:]:
        if base in SCALARS:
            return f", because it would be read back as {base.__name__}"
    return ", because YAML 1.1 has no such type" if kind.__module__ in ("datetime", "decimal") else ""


def _instead(value: Any, role: str) -> str:
    kind = type(value)
    if any((base.__module__, base.__name__) == ("enum", "Enum") for base in kind.__mro__):
        return f"{role}.value"
    for scalar in (int, float, str, bytes):
        if isinstance(value, scalar):
            return f"{scalar.__name__}({role})"
    for base in kind.__mro__:
        instead = _INSTEAD.get(f"{base.__module__.split('.')[0]}.{base.__qualname__}")
        if instead is not None:
            if role != "value" and instead[0] == "[":
                break
            return instead.format(role)
    if role != "value":
        return f"a scalar: {_PLAIN.partition(', dict')[0]}"
    for mark, instead in _INSTEAD_BY_MARK.items():
        if hasattr(kind, mark):
            return instead
    if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):
        return "dict(value)"
    if hasattr(kind, "__iter__"):
        return "list(value)"
    if hasattr(value, "__dict__"):
        return f"dict(vars(value)), or the parts that you need, as {_PLAIN}"
    return f"what you need of it as {_PLAIN}"
