"""`MappedDict`: a dict in a state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, ClassVar, Self, SupportsIndex

from pstate.errors import ClosedAttributeError, ClosedError, ReservedNameError
from pstate.memory.nodes import Mapped, backwards, recorded, register, shown_place, take_item, truth, unmapped
from pstate.memory.ops import NODES, depth
from pstate.memory.views import MappedItems, MappedKeys, MappedValues, keys_of
from pstate.values import FAST, SCALARS, check_key, take

if TYPE_CHECKING:
    from pstate.memory.owner import Intent

_MISSING: Any = object()

_dict_get, _dict_item, _dict_has, _dict_len = dict.get, dict.__getitem__, dict.__contains__, dict.__len__


class MappedDict(Mapped, dict[Any, Any]):
    """A dict in a state. Its items are attributes as well, unless the name is that of a method."""

    __slots__ = ("_key", "_parent", "_store")

    _reserved: ClassVar[frozenset[str]] = frozenset()
    _internal: ClassVar[frozenset[str]] = frozenset()  #: names with an underscore that are not for subclasses
    _direct: ClassVar[bool] = True  #: the class does not override `__setitem__`

    if TYPE_CHECKING:

        def _plain(self) -> dict[Any, Any]: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if cls is not MappedDict:
            return dict.__new__(cls)
        made: Any = {key: unmapped(value) for key, value in dict(*map(unmapped, args), **kwargs).items()}
        return made  # type: ignore[no-any-return]

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
                raise AttributeError(f"{shown_place(self)} has no key {name!r}", name=name, obj=self)
        # Either not a key, or a property of a subclass raised AttributeError: the interpreter raises it again.
        return object.__getattribute__(self, name)

    def get(self, key: Any, default: Any = None, /) -> Any:
        """Return the value of *key*, or *default* if there is no such key."""
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

    __bool__ = truth(_dict_len)

    # reading all of it

    def __iter__(self) -> Iterator[Any]:
        return iter(self._store.read(keys_of, self))

    def __reversed__(self) -> Iterator[Any]:
        return backwards(self._store.read(keys_of, self))

    def keys(self) -> MappedKeys:  # type: ignore[override]
        """Return a view of the keys, which always shows the newest commit."""
        return MappedKeys(self)

    def values(self) -> MappedValues:  # type: ignore[override]
        """Return a view of the values, which always shows the newest commit."""
        return MappedValues(self)

    def items(self) -> MappedItems:  # type: ignore[override]
        """Return a view of the items, which always shows the newest commit."""
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
            return len(self) == len(other) and self._plain() == unmapped(other)
        except ClosedError:
            return False

    __hash__ = None

    def __or__(self, other: Any) -> dict[Any, Any]:
        return self._plain() | unmapped(other) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return other | self._plain() if isinstance(other, dict) else NotImplemented

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return dict, (self._plain(),)

    def __dir__(self) -> Iterable[str]:
        try:
            names = self._store.read(keys_of, self)
        except ClosedError:
            names = []
        return sorted({*super().__dir__(), *(name for name in names if type(name) is str and name.isidentifier())})

    # changing

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) is not str or not key.isascii():
            key = check_key(key, partial(shown_place, self))
        kind = type(value)
        if kind not in FAST and not (kind is str and value.isascii()):
            if kind in NODES and self._store.read(_holds_key, self, key, value):
                return  # the second half of `state.x += [1]`: the list is here, and was changed already
            value = take(value, partial(shown_place, self, key), depth(self))
        self._store.put(self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._store.mutate(self, _pop_key, key, _MISSING)

    def __setattr__(self, name: str, value: Any) -> None:
        if name[:1] == "_" or name in self._reserved:
            self._python_attribute(name, "__set__")
            object.__setattr__(self, name, value)
        elif value.__class__ in FAST and self._direct and name.isascii():
            self._store.put(self, name, value)  # the same as self[name] = value, but 0.3 µs faster
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
                raise AttributeError(f"{shown_place(self)} has no key {name!r}", name=name, obj=self) from None

    def _python_attribute(self, name: str, way: str) -> None:
        """Return if *name* is a Python attribute that can be set (deleted), else raise the reason why not."""
        cls = type(self)
        if name in self._internal and hasattr(self, "__dict__"):
            place = f"state.{name}"  # also for a state that is not open yet
            raise ReservedNameError(
                f"{place}: the class {cls.__name__} uses the name {name!r} itself. Nothing was changed. Choose another "
                "name.",
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
        place = f"{shown_place(self)}.{name}"
        item = f"{shown_place(self)}[{name!r}]".replace("'", '"')
        if name[:1] != "_":
            raise ReservedNameError(
                f"{place}: {name!r} is a name of the class {cls.__name__}, so it cannot be a key as an attribute. "
                f"Nothing was changed. Use the item: {item}",
                place=place,
                name=name,
                obj=self,
            )
        raise AttributeError(
            f"{place}: a name with a leading underscore is a Python attribute, never a key, and a dict in a state "
            f"cannot have one. Nothing was changed. Use the item: {item}",
            name=name,
            obj=self,
        )

    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        """Return the value of *key*. If there is no such key, set it to *default* in one commit before that."""
        value: Any = _MISSING
        while True:
            try:
                found = self.get(key, _MISSING)
            except TypeError:
                check_key(key, partial(shown_place, self))
                raise
            if found is not _MISSING:
                return found
            if value is _MISSING:
                value = take_item(self, key, default)
                key = check_key(key, partial(shown_place, self))
            found = self._store.mutate(self, _set_missing, key, value)
            # A container that was stored is now a mapped one, and is fetched. Others may have removed it meanwhile.
            if found is not _MISSING:
                return found

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Set many items in one commit: all of them or, if one is refused, none."""
        new: dict[Any, Any] = {}
        new.update(unmapped(other), **kwargs)
        around = depth(self)
        taken = {}
        for key, value in new.items():
            key = check_key(key, partial(shown_place, self))
            taken[key] = value if type(value) in FAST else take(value, partial(shown_place, self, key), around)
        self._store.mutate(self, _set_keys, taken)

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def pop(self, key: Any, default: Any = _MISSING, /) -> Any:
        """Delete *key* in one commit, and return its value.

        If there is no such key, return *default* and commit nothing; without *default*, raise KeyError.
        """
        return self._store.mutate(self, _pop_key, key, default)

    def popitem(self) -> tuple[Any, Any]:
        """Delete the last item in one commit, and return its key and its value. Raises KeyError for an empty dict."""
        item: tuple[Any, Any] = self._store.mutate(self, _pop_last)
        return item

    def clear(self) -> None:
        """Delete all items in one commit."""
        self._store.mutate(self, _delete_keys)


def _check_names(cls: type[MappedDict]) -> None:
    """Raise ReservedNameError if *cls*, or a class mixed into it, has a name that it cannot have.

    Python finds a class attribute before it looks for the key of that name, so a program would read it instead of the
    value in the file. For methods, descriptors and ClassVars that is intended.
    """
    internal = {name for base in cls.__bases__ for name in getattr(base, "_internal", ())}
    for base in cls.__mro__:
        if base is not cls and (MappedDict in base.__mro__ or base in MappedDict.__mro__):
            continue  # it was checked, or is a base of every mapped dict
        for name, value in list(vars(base).items()):  # reading annotations may add a name
            if name in internal:
                problem = f"its base class uses the name {name!r} itself. Choose another name."
            elif name[:1] != "_" and _is_value(value) and not _is_class_var(cls, name):
                problem = (
                    f"its attribute {name!r} would hide the key of that name in every file. For the default of a key, "
                    f"write {cls.__name__}(path, {name}=...) when you open the state. For a value of the class, "
                    "annotate it with ClassVar, or begin its name with an underscore."
                )
            else:
                continue
            raise ReservedNameError(f"class {cls.__qualname__}: {problem}", name=name, obj=cls)


def _is_value(held: Any) -> bool:
    """Whether *held*, in the namespace of a class, is neither callable nor a descriptor. A slot is a value, too."""
    if isinstance(held, MemberDescriptorType):
        return True
    return not callable(held) and not any(hasattr(type(held), name) for name in ("__get__", "__set__", "__delete__"))


def _is_class_var(cls: type, name: str) -> bool:
    """Whether *cls*, or one of its bases, declares *name* as a ClassVar, also by annotations that are strings."""
    annotations = (getattr(base, "__annotations__", {}) for base in cls.__mro__)
    kinds = [str(found[name]).partition("[")[0] for found in annotations if name in found]
    return any(kind.rpartition(".")[2].strip(" '\"") == "ClassVar" for kind in kinds)


def internal_names(cls: type) -> frozenset[str]:
    """The names with one underscore that *cls* uses itself. Those of IPython are free for subclasses."""
    return frozenset(name for name in dir(cls) if name[0] == "_" and name[:2] != "__" and name[:6] != "_repr_")


MappedDict._reserved = frozenset(dir(MappedDict))
MappedDict._internal = internal_names(MappedDict)


def _holds_key(node: Any, key: Any, value: Any) -> bool:
    return _dict_get(node, key) is value


def _set_missing(node: Any, key: Any, value: Any) -> Intent:
    if _dict_has(node, key):
        return [], _dict_item(node, key)
    return [("set", key, value)], value if type(value) in SCALARS else _MISSING


def _set_keys(node: Any, new: dict[Any, Any]) -> Intent:
    return [("set", key, value) for key, value in new.items()], None


def _pop_key(node: Any, key: Any, default: Any) -> Intent:
    if _dict_has(node, key):
        return [("delete", recorded(node, key))], _dict_item(node, key)
    if default is _MISSING:
        raise KeyError(key)
    return [], default


def _pop_last(node: Any) -> Intent:
    if not _dict_len(node):
        raise KeyError("popitem(): dictionary is empty")
    key = next(dict.__reversed__(node))
    return [("delete", key)], (key, _dict_item(node, key))


def _delete_keys(node: Any) -> Intent:
    return [("delete", key) for key in dict.__reversed__(node)], None  # from the end, which makes undoing cheap


register(dict, MappedDict)
