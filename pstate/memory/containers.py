"""`MappedDict`, `MappedList`, `MappedSet`: real dicts, lists and sets whose every change is one commit.

A mutator does three things: it copies the values in (`values.take`, where other people's code may run and anything may
be refused), hands the store a *plan* (a function that looks at memory and says which operations make the change, or
raises what the builtin would raise), and returns. A reader asks the store for the right moment to look. This module
knows no file and no lock: what it needs of them is the store's `fresh`, `view`, `read`, `put` and `mutate`.

Two ways to read:

- One value, the hot path: when `store.fresh()` says that memory is the newest commit, take the value, then see whether
  `store.view` is still the same; between the two nothing has changed, so no lock was needed.
- Everything else: `store.read(function, ...)` calls a function that looks at memory while nobody else changes it.

Copies of whole containers (`copy()`, slices, ``+``, ``|``) are plain builtin containers, all the way down: they are
values, not parts of the state. Single elements and iteration give the mapped containers themselves. Iteration walks the
state as it was when the loop began. What a program compares, searches or sorts with may run other people's code, so it
gets plain copies too; only `sort(key=...)` passes the mapped elements.

Only a state makes mapped containers. The classes themselves, called as ``type(x)(...)``, make the plain kind: that is
what code does which rebuilds containers without knowing their classes, `dataclasses.asdict` for instance.

After the close every read raises ClosedError. Debuggers and log lines ask without wanting a value, so some questions
have an answer that is no old value: see `_closed_repr`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from functools import partial
from itertools import chain
from operator import index as as_index
from threading import get_ident
from types import CodeType, FrameType, MappingProxyType, MemberDescriptorType
from typing import Any, ClassVar, NoReturn, Self, SupportsIndex

from pstate.errors import ClosedAttributeError, ClosedError, ReservedNameError
from pstate.memory.ops import KINDS, NODES, Op, Top, depth, graft, node_path, plain, stored_key
from pstate.values import COPIES, FAST, FAST_KEYS, SCALARS, check_key, check_member, place_text, take

__all__ = ["MappedDict", "MappedList", "MappedSet", "graft", "node_path", "place_of"]

Plan = tuple[list[Op], Any]

_MISSING: Any = object()
_NO_CHANGE: Plan = ([], None)

_dict_get, _dict_item, _dict_has, _dict_len = dict.get, dict.__getitem__, dict.__contains__, dict.__len__
_list_item, _list_len, _list_copy, _list_has = list.__getitem__, list.__len__, list.copy, list.__contains__
_set_has, _set_len, _set_iter = set.__contains__, set.__len__, set.__iter__


def place_of(node: Any, *keys: Any) -> str:
    """Where *node* stands, as a program would write it, followed by *keys*; for error messages."""
    path = node_path(node)
    if isinstance(path, Top):
        return place_text(keys, root=f"({path.value})")
    return place_text([*path, *keys])


def _take(node: Any, key: Any, value: Any) -> Any:
    return take(value, partial(place_of, node, key), depth(node))


def _take_all(node: Any, first: int, values: Iterable[Any]) -> list[Any]:
    taken = list(_unmapped(values))
    around = depth(node)
    for index, value in enumerate(taken):
        if type(value) not in FAST:
            taken[index] = take(value, partial(place_of, node, first + index), around)
    return taken


def _unmapped(value: Any) -> Any:
    """A mapped container as a plain, consistent copy; anything else as it is."""
    return value._plain() if isinstance(value, (MappedDict, MappedList, MappedSet)) else value


def _recorded(node: Any, key: Any) -> Any:
    """*key*, which *node* holds, in a form that a record may name."""
    kind = type(key)
    return key if kind is str or kind in FAST_KEYS or kind is float else stored_key(node, key)


def _backwards(snapshot: list[Any]) -> Iterator[Any]:
    backwards: Iterator[Any] = reversed(snapshot)
    return backwards


def _not_made_by_hand(node: Any) -> NoReturn:
    raise TypeError(f"a {type(node).__name__} is made by assigning a plain container into a state")


def _closed_repr(node: Any, error: ClosedError) -> str:
    """What *node* is called when *error* says that its state is not open.

    The other questions that do not raise then: it counts as true, is equal to itself only, and has no keys as
    attributes. None of these answers is a value that the file may no longer have.
    """
    state = f" of {error.path!r}, closed" if error.path else ", not open"
    return f"<{type(node).__name__}{state}>"


def _truth(length: Callable[[Any], int]) -> Callable[[Any], bool]:
    """`bool` of a mapped kind whose builtin *length* is given."""

    def __bool__(self: Any) -> bool:
        store = self._store
        view = store.fresh()
        if view is not None:
            size = length(self)
            if store.view is view:
                return size > 0
        try:
            return bool(store.read(length, self))
        except ClosedError:
            return True  # `while state.todo:` must not end as if all was done

    return __bool__


def _for_json() -> bool:
    """Whether the json module iterates: it takes nested containers one by one, and must get them all of one moment."""
    return sys._getframe(2).f_globals.get("__name__") == "json.encoder"


# --- dict


class MappedDict(dict[Any, Any]):
    """A dict in a state; its items are attributes as well, wherever the name is no method."""

    __slots__ = ("_key", "_parent", "_store")

    _store: Any
    _parent: Any
    _key: Any
    _reserved: ClassVar[frozenset[str]] = frozenset()
    _internal: ClassVar[frozenset[str]] = frozenset()  #: names with an underscore that are not for subclasses
    _direct: ClassVar[bool] = True  #: the class does not override `__setitem__`

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if cls is not MappedDict:
            return dict.__new__(cls)
        made: Any = {key: _unmapped(value) for key, value in dict(*map(_unmapped, args), **kwargs).items()}
        return made  # type: ignore[no-any-return]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _not_made_by_hand(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_names(cls)
        cls._reserved = frozenset(dir(cls))
        cls._direct = cls.__setitem__ is MappedDict.__setitem__

    # reading one value

    def __getitem__(self, key: Any) -> Any:
        store = self._store
        view = store.fresh()
        if view is not None:
            try:
                value = _dict_item(self, key)
            except KeyError:
                if store.view is view:
                    raise
            else:
                if store.view is view:
                    return value
        return store.read(_dict_item, self, key)

    def __getattr__(self, name: str) -> Any:
        if not name or name[0] != "_":
            store = self._store
            view = store.fresh()
            value = _dict_get(self, name, _MISSING)
            if view is None or store.view is not view:
                try:
                    value = store.read(_dict_get, self, name, _MISSING)
                except ClosedError as error:
                    raise ClosedAttributeError(error.message, path=error.path, name=name, obj=self) from None
            if value is not _MISSING:
                return value
            if name not in self._reserved:
                raise AttributeError(f"{place_of(self)} has no key {name!r}", name=name, obj=self)
        # Either no name of ours, or a property of a subclass raised AttributeError: let the interpreter say it again.
        return object.__getattribute__(self, name)

    def get(self, key: Any, default: Any = None, /) -> Any:
        store = self._store
        view = store.fresh()
        if view is not None:
            value = _dict_get(self, key, default)
            if store.view is view:
                return value
        return store.read(_dict_get, self, key, default)

    def __contains__(self, key: object) -> bool:
        store = self._store
        view = store.fresh()
        if view is not None:
            found = _dict_has(self, key)
            if store.view is view:
                return found
        return bool(store.read(_dict_has, self, key))

    def __len__(self) -> int:
        store = self._store
        view = store.fresh()
        if view is not None:
            size = _dict_len(self)
            if store.view is view:
                return size
        return int(store.read(_dict_len, self))

    __bool__ = _truth(_dict_len)

    # reading all of it

    def _plain(self) -> dict[Any, Any]:
        copied: dict[Any, Any] = self._store.read(plain, self)
        return copied

    def __iter__(self) -> Iterator[Any]:
        return iter(self._store.read(_keys, self))

    def __reversed__(self) -> Iterator[Any]:
        return _backwards(self._store.read(_keys, self))

    def keys(self) -> MappedKeys:  # type: ignore[override]
        return MappedKeys(self)

    def values(self) -> MappedValues:  # type: ignore[override]
        return MappedValues(self)

    def items(self) -> MappedItems:  # type: ignore[override]
        return MappedItems(self)

    def copy(self) -> dict[Any, Any]:
        """Return a plain dict; containers in it are plain copies as well."""
        return self._plain()

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None, /) -> dict[Any, Any]:
        """Return a plain dict, as `dict.fromkeys` does."""
        return dict.fromkeys(iterable, value)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, dict):
            return NotImplemented
        try:
            return len(self) == len(other) and self._plain() == _unmapped(other)
        except ClosedError:
            return False

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = None

    def __repr__(self) -> str:
        try:
            return repr(self._plain())
        except ClosedError as error:
            return _closed_repr(self, error)

    def __or__(self, other: Any) -> dict[Any, Any]:
        return self._plain() | _unmapped(other) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return other | self._plain() if isinstance(other, dict) else NotImplemented

    def __copy__(self) -> dict[Any, Any]:
        return self._plain()

    def __deepcopy__(self, memo: Any) -> dict[Any, Any]:
        return self._plain()

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return dict, (self._plain(),)

    def __dir__(self) -> Iterable[str]:
        try:
            names = self._store.read(_keys, self)
        except ClosedError:
            names = []
        return sorted({*super().__dir__(), *(name for name in names if type(name) is str and name.isidentifier())})

    # changing

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) is not str or not key.isascii():
            key = check_key(key, partial(place_of, self))
        kind = type(value)
        if kind not in FAST and not (kind is str and value.isascii()):
            if kind in NODES and self._store.read(_holds_key, self, key, value):
                return  # the second half of `state.x += [1]`: the list has changed already, and is here
            value = take(value, partial(place_of, self, key), depth(self))
        self._store.put(self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._store.mutate(self, _pop_key, key, _MISSING)

    def __setattr__(self, name: str, value: Any) -> None:
        if name[:1] == "_" or name in self._reserved:
            self._python_attribute(name, "__set__")
            object.__setattr__(self, name, value)
        elif value.__class__ in FAST and self._direct and name.isascii():
            self._store.put(self, name, value)  # what self[name] = value does, 0.3 µs sooner
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        if name[:1] == "_" or name in self._reserved:
            self._python_attribute(name, "__delete__")
            object.__delattr__(self, name)
        else:
            try:
                self._store.mutate(self, _pop_key, name, _MISSING)
            except KeyError:
                raise AttributeError(f"{place_of(self)} has no key {name!r}", name=name, obj=self) from None

    def _python_attribute(self, name: str, way: str) -> None:
        """Return when *name* is an attribute in Python's sense that can be set (deleted), else say what it is."""
        cls = type(self)
        if name in self._internal and hasattr(self, "__dict__"):
            place = f"state.{name}"  # also of one that is not open yet
            raise ReservedNameError(
                f"{place}: the class {cls.__name__} uses the name {name!r} itself. Nothing was changed. Choose another "
                "one.",
                place=place,
                name=name,
                obj=self,
            )
        held = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
        if isinstance(held, property):
            if (held.fset if way == "__set__" else held.fdel) is not None:
                return
        elif hasattr(type(held), way) and name not in self._internal:
            return
        if name[:1] == "_" and hasattr(self, "__dict__"):
            return
        place = f"{place_of(self)}.{name}"
        item = f"{place_of(self)}[{name!r}]".replace("'", '"')
        if name[:1] != "_":
            raise ReservedNameError(
                f"{place}: {name!r} belongs to the class {cls.__name__}, so it is no key as an attribute. "
                f"Nothing was changed. As an item it is: {item}",
                place=place,
                name=name,
                obj=self,
            )
        raise AttributeError(
            f"{place}: names with a leading underscore are Python attributes, never state, and a nested dict has "
            f"none. Nothing was changed. As a key it works: {item}",
            name=name,
            obj=self,
        )

    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        value: Any = _MISSING
        while True:
            try:
                found = self.get(key, _MISSING)
            except TypeError:
                check_key(key, partial(place_of, self))
                raise
            if found is not _MISSING:
                return found
            if value is _MISSING:
                value = _take(self, key, default)
                key = check_key(key, partial(place_of, self))
            found = self._store.mutate(self, _set_missing, key, value)
            # A container that went in stands there as a mapped one, and is fetched; but somebody may have removed it.
            if found is not _MISSING:
                return found

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Set many items in one commit; all of them or, where one is refused, none."""
        new: dict[Any, Any] = {}
        new.update(_unmapped(other), **kwargs)
        around = depth(self)
        taken = {}
        for key, value in new.items():
            key = check_key(key, partial(place_of, self))
            taken[key] = value if type(value) in FAST else take(value, partial(place_of, self, key), around)
        self._store.mutate(self, _set_keys, taken)

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def pop(self, key: Any, default: Any = _MISSING, /) -> Any:
        return self._store.mutate(self, _pop_key, key, default)

    def popitem(self) -> tuple[Any, Any]:
        item: tuple[Any, Any] = self._store.mutate(self, _pop_last)
        return item

    def clear(self) -> None:
        self._store.mutate(self, _delete_keys)


def _check_names(cls: type[MappedDict]) -> None:
    """Raise ReservedNameError where *cls*, or a class mixed into it, has a name that it cannot have.

    A value of a class would be found before the key of its name is looked for, so that a program would read it instead
    of what is in the file. Methods and descriptors are meant so, and a ClassVar says so.
    """
    internal = {name for base in cls.__bases__ for name in getattr(base, "_internal", ())}
    for base in cls.__mro__:
        if base is not cls and (MappedDict in base.__mro__ or base in MappedDict.__mro__):
            continue  # it has been checked, or every mapped dict has it
        for name, value in list(vars(base).items()):  # a look at annotations may add a name
            if name in internal:
                problem = f"its base class uses the name {name!r} itself. Choose another one."
            elif name[:1] != "_" and _is_value(value) and not _is_class_var(cls, name):
                problem = (
                    f"its attribute {name!r} would hide the key of that name in every file. Give the default of a key "
                    f"when you open the state: {cls.__name__}(path, {name}=...). A value of the class itself is "
                    "annotated with ClassVar, or begins with an underscore."
                )
            else:
                continue
            raise ReservedNameError(f"class {cls.__qualname__}: {problem}", name=name, obj=cls)


def _is_value(held: Any) -> bool:
    """Whether *held*, in the namespace of a class, is neither called nor a descriptor. A slot is a value, too."""
    if isinstance(held, MemberDescriptorType):
        return True
    return not callable(held) and not any(hasattr(type(held), name) for name in ("__get__", "__set__", "__delete__"))


def _is_class_var(cls: type, name: str) -> bool:
    """Whether *cls*, or one of its bases, declares *name* as a ClassVar, also where annotations are strings."""
    annotations = (getattr(base, "__annotations__", {}) for base in cls.__mro__)
    kinds = [str(found[name]).partition("[")[0] for found in annotations if name in found]
    return any(kind.rpartition(".")[2].strip(" '\"") == "ClassVar" for kind in kinds)


def internal_names(cls: type) -> frozenset[str]:
    """The names that *cls* uses itself, and that look as if they were for subclasses."""
    return frozenset(name for name in dir(cls) if name[0] == "_" and name[:2] != "__")


MappedDict._reserved = frozenset(dir(MappedDict))
MappedDict._internal = internal_names(MappedDict)


def _keys(node: Any) -> list[Any]:
    return [*dict.keys(node)]


def _values(node: Any) -> list[Any]:
    return [*dict.values(node)]


def _items(node: Any) -> list[tuple[Any, Any]]:
    return [*dict.items(node)]


def _holds_key(node: Any, key: Any, value: Any) -> bool:
    return _dict_get(node, key) is value


def _set_missing(node: Any, key: Any, value: Any) -> Plan:
    if _dict_has(node, key):
        return [], _dict_item(node, key)
    return [("set", key, value)], value if type(value) in SCALARS else _MISSING


def _set_keys(node: Any, new: dict[Any, Any]) -> Plan:
    return [("set", key, value) for key, value in new.items()], None


def _pop_key(node: Any, key: Any, default: Any) -> Plan:
    if _dict_has(node, key):
        return [("delete", _recorded(node, key))], _dict_item(node, key)
    if default is _MISSING:
        raise KeyError(key)
    return [], default


def _pop_last(node: Any) -> Plan:
    if not _dict_len(node):
        raise KeyError("popitem(): dictionary is empty")
    key = next(dict.__reversed__(node))
    return [("delete", key)], (key, _dict_item(node, key))


def _delete_keys(node: Any) -> Plan:
    return [("delete", key) for key in dict.__reversed__(node)], None  # from the end, where undoing is cheap


class _CopyUnderWay:
    """Stands in for the store of one `MappedDict` while the interpreter copies it: ``dict(state)``, ``{**state}``.

    For that CPython iterates `keys()` and then gets each item by `__getitem__`; with another process' commit in
    between, the copy would be half of each, or fail. So who iterates `keys()` gets the items of that moment, as long as
    they are asked for by the same instruction of the same frame, in their order. Anything else is passed on to the
    store, and ends it. Reading that is no such copy never comes here, and pays nothing.
    """

    __slots__ = ("_copies", "_store", "fresh")

    def __init__(self, store: Any) -> None:
        self._store = store
        #: By thread. Frame by id: a reference would keep its locals, and so the state, alive.
        self._copies: dict[int, tuple[int, CodeType, int, list[tuple[Any, Any]]]] = {}
        self.fresh = _never

    @staticmethod
    def begin(mapping: MappedDict, items: list[tuple[Any, Any]], frame: FrameType) -> None:
        copy = id(frame), frame.f_code, frame.f_lasti, items[::-1]
        store = store_of(mapping)
        # Threads share the stand-in: one must not take it away while another puts its copy into it.
        store.alone(store.lock_timeout, _CopyUnderWay._begin, mapping, copy)

    @staticmethod
    def _begin(mapping: MappedDict, copy: tuple[int, CodeType, int, list[tuple[Any, Any]]]) -> None:
        stand_in = mapping._store
        if type(stand_in) is not _CopyUnderWay:
            stand_in = _CopyUnderWay(stand_in)
        stand_in._copies[get_ident()] = copy
        object.__setattr__(mapping, "_store", stand_in)

    def read(self, function: Callable[..., Any], node: Any, *args: Any) -> Any:
        copy = self._copies.get(get_ident())
        if copy is not None:
            frame, code, instruction, items = copy
            caller = sys._getframe(2)
            if (
                function is _dict_item
                and (id(caller), caller.f_code, caller.f_lasti) == (frame, code, instruction)
                and items[-1][0] is args[0]
            ):
                value = items.pop()[1]
                if not items:
                    self._end(node)
                return value
            self._end(node)
        return self._store.read(function, node, *args)

    def put(self, node: Any, key: Any, value: Any) -> None:
        self._end(node)
        self._store.put(node, key, value)

    def mutate(self, node: Any, plan: Callable[..., Plan], *args: Any) -> Any:
        self._end(node)
        return self._store.mutate(node, plan, *args)

    def _end(self, node: Any) -> None:
        self._store.alone(self._store.lock_timeout, self._ended, node)

    def _ended(self, node: Any) -> None:
        self._copies.pop(get_ident(), None)
        if not self._copies and node._store is self:
            object.__setattr__(node, "_store", self._store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def store_of(node: Any) -> Any:
    """The store of *node* itself, also while the interpreter copies the node."""
    store = node._store
    return store._store if type(store) is _CopyUnderWay else store


def _never() -> None:
    return None


class _View:
    """What the three views of a dict have in common: `_now` makes the builtin one of this moment."""

    __slots__ = ()
    _mapping: MappedDict

    def _now(self) -> Any:
        raise NotImplementedError

    def __bool__(self) -> bool:
        return bool(self._mapping)

    def __repr__(self) -> str:
        try:
            return repr(self._now())
        except ClosedError as error:
            return _closed_repr(self, error)

    @property
    def mapping(self) -> Mapping[Any, Any]:
        return MappingProxyType(self._mapping)


class _SetLikeView(_View):
    """The set operations of a dict view, each on the keys or items of one moment."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        try:
            return bool(self._now() == _now(other))
        except ClosedError:
            return self is other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> Any:
        return self._now() < _now(other)

    def __le__(self, other: Any) -> Any:
        return self._now() <= _now(other)

    def __gt__(self, other: Any) -> Any:
        return self._now() > _now(other)

    def __ge__(self, other: Any) -> Any:
        return self._now() >= _now(other)

    def __and__(self, other: Any) -> Any:
        return self._now() & _now(other)

    def __or__(self, other: Any) -> Any:
        return self._now() | _now(other)

    def __sub__(self, other: Any) -> Any:
        return self._now() - _now(other)

    def __xor__(self, other: Any) -> Any:
        return self._now() ^ _now(other)

    def __rand__(self, other: Any) -> Any:
        return _now(other) & self._now()

    def __ror__(self, other: Any) -> Any:
        return _now(other) | self._now()

    def __rsub__(self, other: Any) -> Any:
        return _now(other) - self._now()

    def __rxor__(self, other: Any) -> Any:
        return _now(other) ^ self._now()

    def isdisjoint(self, other: Any) -> bool:
        return bool(self._now().isdisjoint(_now(other)))

    __hash__ = None  # type: ignore[assignment]


def _now(other: Any) -> Any:
    return other._now() if isinstance(other, _SetLikeView) else _unmapped(other)


class MappedKeys(_SetLikeView, KeysView[Any]):
    """The keys of a `MappedDict`, live; iteration walks those of the moment when it began."""

    __slots__ = ()

    def _now(self) -> Any:
        return dict.fromkeys(self._mapping._store.read(_keys, self._mapping)).keys()

    def __iter__(self) -> Iterator[Any]:
        mapping = self._mapping
        items: list[tuple[Any, Any]] = mapping._store.read(_items, mapping)
        if items:
            _CopyUnderWay.begin(mapping, items, sys._getframe(1))
        return iter([key for key, _ in items])

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._mapping)


class MappedItems(_SetLikeView, ItemsView[Any, Any]):
    """The items of a `MappedDict`, live; iteration walks those of the moment when it began."""

    __slots__ = ()

    def _now(self) -> Any:
        return self._mapping._plain().items()

    def __contains__(self, item: object) -> bool:
        return isinstance(item, tuple) and len(item) == 2 and super().__contains__(item)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        if _for_json():
            return iter(self._now())
        return iter(self._mapping._store.read(_items, self._mapping))

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return _backwards(self._mapping._store.read(_items, self._mapping))


class MappedValues(_View, ValuesView[Any]):
    """The values of a `MappedDict`, live; iteration walks those of the moment when it began."""

    __slots__ = ()

    def _now(self) -> Any:
        return self._mapping._plain().values()

    def __contains__(self, value: object) -> bool:
        return _unmapped(value) in self._now()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mapping._store.read(_values, self._mapping))

    def __reversed__(self) -> Iterator[Any]:
        return _backwards(self._mapping._store.read(_values, self._mapping))


# --- list


class MappedList(list[Any]):
    """A list in a state. A reference to one of its elements stays right when others before it come and go."""

    __slots__ = ("_drift", "_key", "_parent", "_size", "_store")

    _store: Any
    _parent: Any
    _key: Any
    _size: int  #: how long it is by its operations; if it is not, somebody has gone round them
    _drift: int  #: how far the element that was last looked for had moved, see `ops.index_of`

    def __new__(cls, *args: Any) -> Self:
        values: list[Any] = list(*map(_unmapped, args))
        made: Any = list(map(_unmapped, values))
        return made  # type: ignore[no-any-return]

    def __init__(self, *args: Any) -> None:
        _not_made_by_hand(self)

    # reading

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._store.read(_slice, self, _resolved(index))
        if type(index) is not int:
            index = _index(index)
        store = self._store
        view = store.fresh()
        if view is not None:
            try:
                value = _list_item(self, index)
            except IndexError:
                if store.view is view:
                    raise
            else:
                if store.view is view:
                    return value
        return store.read(_list_item, self, index)

    def __len__(self) -> int:
        store = self._store
        view = store.fresh()
        if view is not None:
            size = _list_len(self)
            if store.view is view:
                return size
        return int(store.read(_list_len, self))

    __bool__ = _truth(_list_len)

    def _plain(self) -> list[Any]:
        copied: list[Any] = self._store.read(plain, self)
        return copied

    def __contains__(self, value: object) -> bool:
        if type(value) in SCALARS:
            return bool(self._store.read(_list_has, self, value))
        return _unmapped(value) in self._plain()

    def __iter__(self) -> Iterator[Any]:
        if _for_json():
            return iter(self._plain())
        return iter(self._store.read(_list_copy, self))

    def __reversed__(self) -> Iterator[Any]:
        return _backwards(self._store.read(_list_copy, self))

    def index(self, value: Any, start: Any = 0, stop: Any = sys.maxsize, /) -> int:
        if type(value) in SCALARS:
            return int(self._store.read(list.index, self, value, as_index(start), as_index(stop)))
        return self._plain().index(_unmapped(value), start, stop)

    def count(self, value: Any, /) -> int:
        if type(value) in SCALARS:
            return int(self._store.read(list.count, self, value))
        return self._plain().count(_unmapped(value))

    def copy(self) -> list[Any]:
        """Return a plain list; containers in it are plain copies as well."""
        return self._plain()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, list):
            return NotImplemented
        try:
            return len(self) == len(other) and self._plain() == _unmapped(other)
        except ClosedError:
            return False

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __lt__(self, other: Any) -> bool:
        return self._plain() < _unmapped(other) if isinstance(other, list) else NotImplemented

    def __le__(self, other: Any) -> bool:
        return self._plain() <= _unmapped(other) if isinstance(other, list) else NotImplemented

    def __gt__(self, other: Any) -> bool:
        return self._plain() > _unmapped(other) if isinstance(other, list) else NotImplemented

    def __ge__(self, other: Any) -> bool:
        return self._plain() >= _unmapped(other) if isinstance(other, list) else NotImplemented

    __hash__ = None

    def __repr__(self) -> str:
        try:
            return repr(self._plain())
        except ClosedError as error:
            return _closed_repr(self, error)

    def __add__(self, other: Any) -> list[Any]:
        return self._plain() + _unmapped(other) if isinstance(other, list) else NotImplemented

    def __radd__(self, other: Any) -> list[Any]:
        return other + self._plain() if isinstance(other, list) else NotImplemented

    def __mul__(self, times: Any) -> list[Any]:
        return self._plain() * times if hasattr(times, "__index__") else NotImplemented

    __rmul__ = __mul__

    def __copy__(self) -> list[Any]:
        return self._plain()

    def __deepcopy__(self, memo: Any) -> list[Any]:
        return self._plain()

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return list, (self._plain(),)

    # changing

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            index = _resolved(index)
            if not hasattr(type(value), "__iter__") and not hasattr(type(value), "__getitem__"):
                raise TypeError("can only assign an iterable")
            first = index.indices(_list_len(self))[0]
            self._store.mutate(self, _set_slice, index, _take_all(self, first, value))
            return
        if type(index) is not int:
            index = _index(index)
        kind = type(value)
        if kind not in FAST and not (kind is str and value.isascii()):
            if kind in NODES and self._store.read(_holds_index, self, index, value):
                return  # the second half of `state.jobs[0] += [1]`
            value = _take(self, index, value)
        self._store.mutate(self, _set_index, index, value)

    def __delitem__(self, index: Any) -> None:
        if isinstance(index, slice):
            self._store.mutate(self, _delete_slice, _resolved(index))
        else:
            self._store.mutate(self, _delete_index, _index(index), "list assignment index out of range")

    def append(self, value: Any, /) -> None:
        kind = type(value)
        if kind not in FAST and not (kind is str and value.isascii()):
            value = _take(self, _list_len(self), value)
        self._store.mutate(self, _append, value)

    def insert(self, index: Any, value: Any, /) -> None:
        index = as_index(index)
        if type(value) not in FAST:
            value = _take(self, index, value)
        self._store.mutate(self, _insert, index, value)

    def extend(self, values: Iterable[Any], /) -> None:
        self._store.mutate(self, _extend, _take_all(self, _list_len(self), values))

    def __iadd__(self, values: Iterable[Any]) -> MappedList:  # type: ignore[misc]
        self.extend(values)
        return self

    def __imul__(self, times: Any) -> MappedList:
        if not hasattr(times, "__index__"):
            return NotImplemented
        self._store.mutate(self, _repeat, as_index(times))
        return self

    def pop(self, index: Any = -1, /) -> Any:
        return self._store.mutate(self, _delete_index, as_index(index), "pop index out of range")

    def remove(self, value: Any, /) -> None:
        self._store.mutate(self, _remove, _unmapped(value))

    def clear(self) -> None:
        self._store.mutate(self, _clear)

    def reverse(self) -> None:
        self._store.mutate(self, _reverse)

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: Any = False) -> None:
        """Sort in one commit; elements keep their identity.

        *key* gets the elements themselves and runs without a lock, so it may use the state. When somebody else changes
        the list meanwhile the keys are taken again; in a transaction nobody can. Raises ValueError, as for a builtin
        list, when it was modified again and again, by *key* itself for instance.
        """
        if key is None:
            self._store.mutate(self, _sort, reverse)
            return
        for _ in range(10):
            elements, content = self._store.read(_elements_and_content, self)
            order = _order([key(element) for element in elements], reverse)
            if self._store.mutate(self, _reorder, content, order):
                return
        raise ValueError(f"{place_of(self)}: list modified during sort. Nothing was changed. Sort it in a transaction.")


def _index(index: Any) -> int:
    if not hasattr(index, "__index__"):
        raise TypeError(f"list indices must be integers or slices, not {type(index).__name__}")
    return as_index(index)


def _resolved(piece: slice) -> slice:
    """The slice with plain integers, so that no `__index__` of somebody else runs under the lock."""
    start, stop, step = (None if part is None else as_index(part) for part in (piece.start, piece.stop, piece.step))
    if step == 0:
        raise ValueError("slice step cannot be zero")
    return slice(start, stop, step)


def _slice(node: Any, piece: slice) -> list[Any]:
    return [plain(item) if type(item) in NODES else item for item in _list_item(node, piece)]


def _holds_index(node: Any, index: int, value: Any) -> bool:
    return -_list_len(node) <= index < _list_len(node) and _list_item(node, index) is value


def _set_index(node: Any, index: int, value: Any) -> Plan:
    size = _list_len(node)
    if not -size <= index < size:
        raise IndexError("list assignment index out of range")
    return [("set", index % size, value)], None


def _delete_index(node: Any, index: int, problem: str) -> Plan:
    size = _list_len(node)
    if not -size <= index < size:
        raise IndexError(problem if size or "pop" not in problem else "pop from empty list")
    return [("delete", index % size)], _list_item(node, index)


def _set_slice(node: Any, piece: slice, values: list[Any]) -> Plan:
    start, stop, step = piece.indices(_list_len(node))
    if step == 1:
        stop = max(start, stop)
        return ([("splice", start, stop, values)] if values or start < stop else []), None
    places = range(start, stop, step)
    if len(places) != len(values):
        raise ValueError(f"attempt to assign sequence of size {len(values)} to extended slice of size {len(places)}")
    return [("set", index, value) for index, value in zip(places, values, strict=True)], None


def _delete_slice(node: Any, piece: slice) -> Plan:
    size = _list_len(node)
    places = range(*piece.indices(size))
    if places.step < 0:
        places = places[::-1]
    if not places:
        return _NO_CHANGE
    if places.step == 1:
        return [("splice", places.start, places.stop, [])], None
    if len(places) <= 8:
        return [("delete", index) for index in reversed(places)], None
    # Many single deletions would each move the rest: bring the elements that go together at the end, and cut there.
    kept = [index for index in range(size) if index not in places]
    return [("order", [*kept, *places]), ("splice", len(kept), size, [])], None


def _append(node: Any, value: Any) -> Plan:
    return [("insert", _list_len(node), value)], None


def _insert(node: Any, index: int, value: Any) -> Plan:
    size = _list_len(node)
    return [("insert", max(0, index + size) if index < 0 else min(index, size), value)], None


def _extend(node: Any, values: list[Any]) -> Plan:
    size = _list_len(node)
    if len(values) == 1:
        return [("insert", size, values[0])], None
    return ([("splice", size, size, values)] if values else []), None


def _repeat(node: Any, times: int) -> Plan:
    if times <= 0:
        return _clear(node)
    return _extend(node, plain(node) * (times - 1))


def _remove(node: Any, value: Any) -> Plan:
    try:
        index = list.index(node if type(value) in SCALARS else plain(node), value)
    except ValueError:
        raise ValueError("list.remove(x): x not in list") from None
    return [("delete", index)], None


def _clear(node: Any) -> Plan:
    size = _list_len(node)
    return ([("splice", 0, size, [])] if size else []), None


def _reverse(node: Any) -> Plan:
    size = _list_len(node)
    return ([("order", list(range(size - 1, -1, -1)))] if size > 1 else []), None


def _order(keys: list[Any], reverse: Any) -> list[int]:
    return sorted(range(len(keys)), key=keys.__getitem__, reverse=reverse)


def _permute(order: list[int]) -> list[Op]:
    return [("order", order)] if any(new != old for new, old in enumerate(order)) else []


def _sort(node: Any, reverse: Any) -> Plan:
    return _permute(_order(plain(node), reverse)), None


def _elements_and_content(node: Any) -> tuple[list[Any], list[Any]]:
    return _list_copy(node), plain(node)


def _reorder(node: Any, content: list[Any], order: list[int]) -> Plan:
    return (_permute(order), True) if plain(node) == content else ([], False)


# --- set


class MappedSet(set[Any]):
    """A set in a state."""

    __slots__ = ("_key", "_parent", "_queue", "_store")

    _store: Any
    _parent: Any
    _key: Any
    _queue: list[Any]

    def __new__(cls, *args: Any) -> Self:
        made: Any = set(*map(_unmapped, args))
        return made  # type: ignore[no-any-return]

    def __init__(self, *args: Any) -> None:
        _not_made_by_hand(self)

    # reading

    def __contains__(self, member: object) -> bool:
        store = self._store
        view = store.fresh()
        if view is not None:
            found = _set_has(self, member)
            if store.view is view:
                return found
        return bool(store.read(_set_has, self, member))

    def __len__(self) -> int:
        store = self._store
        view = store.fresh()
        if view is not None:
            size = _set_len(self)
            if store.view is view:
                return size
        return int(store.read(_set_len, self))

    __bool__ = _truth(_set_len)

    def _plain(self) -> set[Any]:
        copied: set[Any] = self._store.read(plain, self)
        return copied

    def __iter__(self) -> Iterator[Any]:
        return iter(self._store.read(_members, self))

    def copy(self) -> set[Any]:
        """Return a plain set."""
        return self._plain()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        try:
            return bool(self._plain() == _unmapped(other))
        except ClosedError:
            return False

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __lt__(self, other: Any) -> bool:
        return self._plain() < _unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __le__(self, other: Any) -> bool:
        return self._plain() <= _unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __gt__(self, other: Any) -> bool:
        return self._plain() > _unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __ge__(self, other: Any) -> bool:
        return self._plain() >= _unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    __hash__ = None

    def __repr__(self) -> str:
        try:
            return repr(self._plain())
        except ClosedError as error:
            return _closed_repr(self, error)

    def __and__(self, other: Any) -> set[Any]:
        return self._plain() & _unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __or__(self, other: Any) -> set[Any]:
        return self._plain() | _unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __sub__(self, other: Any) -> set[Any]:
        return self._plain() - _unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __xor__(self, other: Any) -> set[Any]:
        return self._plain() ^ _unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __rand__(self, other: Any) -> Any:
        return other & self._plain() if isinstance(other, (set, frozenset)) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return other | self._plain() if isinstance(other, (set, frozenset)) else NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return other - self._plain() if isinstance(other, (set, frozenset)) else NotImplemented

    def __rxor__(self, other: Any) -> Any:
        return other ^ self._plain() if isinstance(other, (set, frozenset)) else NotImplemented

    def union(self, *others: Iterable[Any]) -> set[Any]:
        return self._plain().union(*map(_unmapped, others))

    def intersection(self, *others: Iterable[Any]) -> set[Any]:
        return self._plain().intersection(*map(_unmapped, others))

    def difference(self, *others: Iterable[Any]) -> set[Any]:
        return self._plain().difference(*map(_unmapped, others))

    def symmetric_difference(self, other: Iterable[Any], /) -> set[Any]:
        return self._plain().symmetric_difference(_unmapped(other))

    def isdisjoint(self, other: Iterable[Any], /) -> bool:
        return self._plain().isdisjoint(_unmapped(other))

    def issubset(self, other: Iterable[Any], /) -> bool:
        return self._plain().issubset(_unmapped(other))

    def issuperset(self, other: Iterable[Any], /) -> bool:
        return self._plain().issuperset(_unmapped(other))

    def __copy__(self) -> set[Any]:
        return self._plain()

    def __deepcopy__(self, memo: Any) -> set[Any]:
        return self._plain()

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return set, (self._store.read(_members, self),)

    # changing

    def add(self, member: Any, /) -> None:
        if type(member) is not str or not member.isascii():
            member = check_member(member, partial(place_of, self))
        self._store.mutate(self, _add, [member])

    def discard(self, member: Any, /) -> None:
        self._store.mutate(self, _discard, member, False)

    def remove(self, member: Any, /) -> None:
        self._store.mutate(self, _discard, member, True)

    def pop(self) -> Any:
        return self._store.mutate(self, _pop_member)

    def clear(self) -> None:
        self._store.mutate(self, _discard_all, None)

    def _members_of(self, others: Iterable[Iterable[Any]]) -> list[Any]:
        place = partial(place_of, self)
        members = chain.from_iterable(_unmapped(other) for other in others)
        # Once each, in their order: a set's own changes from run to run.
        return list(dict.fromkeys(check_member(member, place) for member in members))

    def update(self, *others: Iterable[Any]) -> None:
        self._store.mutate(self, _add, self._members_of(others))

    def intersection_update(self, *others: Iterable[Any]) -> None:
        self._store.mutate(self, _keep, [set(_unmapped(other)) for other in others])

    def difference_update(self, *others: Iterable[Any]) -> None:
        self._store.mutate(self, _discard_all, set().union(*map(_unmapped, others)))

    def symmetric_difference_update(self, other: Iterable[Any], /) -> None:
        self._store.mutate(self, _toggle, self._members_of([other]))

    def __ior__(self, other: Any) -> MappedSet:
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        self.update(other)
        return self

    def __iand__(self, other: Any) -> MappedSet:
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        self.intersection_update(other)
        return self

    def __isub__(self, other: Any) -> MappedSet:
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        self.difference_update(other)
        return self

    def __ixor__(self, other: Any) -> MappedSet:
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        self.symmetric_difference_update(other)
        return self


def _members(node: Any) -> list[Any]:
    return [*_set_iter(node)]


def _add(node: Any, members: list[Any]) -> Plan:
    new = [member for member in members if not _set_has(node, member)]
    return ([("add", new)] if new else []), None


def _discard(node: Any, member: Any, required: bool) -> Plan:
    if _set_has(node, member):
        return [("discard", [_recorded(node, member)])], None
    if required:
        raise KeyError(member)
    return _NO_CHANGE


def _discard_all(node: Any, members: set[Any] | None) -> Plan:
    gone = [member for member in _set_iter(node) if members is None or member in members]
    return ([("discard", gone)] if gone else []), None


def _keep(node: Any, others: list[set[Any]]) -> Plan:
    gone = [member for member in _set_iter(node) if not all(member in other for other in others)]
    return ([("discard", gone)] if gone else []), None


def _toggle(node: Any, members: list[Any]) -> Plan:
    gone = [member for member in members if _set_has(node, member)]
    new = [member for member in members if not _set_has(node, member)]
    return [(name, found) for name, found in (("discard", gone), ("add", new)) if found], None


def _pop_member(node: Any) -> Plan:
    if not _set_len(node):
        raise KeyError("pop from an empty set")
    # The first member is ever further away in a set that is emptied from the front. So there is a queue of members; it
    # may be behind, and is filled again when it is used up: constant time per call, however large the set.
    queue = getattr(node, "_queue", [])
    while queue and not _set_has(node, queue[-1]):
        queue.pop()
    if not queue:
        queue = node._queue = _members(node)
    member = stored_key(node, queue[-1])
    return [("discard", [member])], member


COPIES.update({MappedDict: MappedDict._plain, MappedList: MappedList._plain, MappedSet: MappedSet._plain})
KINDS.update({dict: MappedDict, list: MappedList, set: MappedSet})
NODES.update(KINDS.values())
