"""The public class `PersistedState`: a state file as an object, with defaults and transactions.

A thin layer: `memory` has the methods of containers, and `store` the way of a change to the file.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping
from types import GeneratorType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar

from pstate import engines, store
from pstate.errors import ClosedAttributeError, ClosedError, MissingPathError, ReadOnlyError, TransactionError
from pstate.logger import Logger
from pstate.memory import ops
from pstate.memory.dicts import MappedDict, internal_names
from pstate.memory.frames import store_of
from pstate.memory.nodes import Mapped
from pstate.memory.transaction import Pending, Savepoint
from pstate.signals import expected
from pstate.values import check_key, place_text, shown, take

if TYPE_CHECKING:
    from pstate.memory.changes import Change
    from pstate.memory.core import Core
    from pstate.watch import Watch

logger = Logger("pstate.state")

P = ParamSpec("P")
R = TypeVar("R")

#: The arguments with which other code copies a dict of unknown class, and that are never a path. A dict is not one of
#: them: a program that passed one to `PersistedState` by mistake would work with a state that no file keeps.
_PAIRS = (GeneratorType, map, zip, ItemsView, MappedDict)


class PersistedState(MappedDict):
    """A mapping that is one YAML file. Every change of it, at any depth, is committed when the call returns.

    ``PersistedState(path, **defaults)`` opens the file, or begins a new one. It commits *defaults* for the keys that
    are missing, at any depth of dicts, in one commit. An existing value stays, of whatever type it is, and nothing is
    added to a list or a set.

    Keys are read and written as items or, if the name is not that of a method, as attributes. Names with a leading
    underscore are ordinary Python attributes, never state. Subclasses may add methods, descriptors, such attributes,
    and values that are annotated with ClassVar. Any other class attribute would hide the key of its name, so it raises
    ReservedNameError when the class is defined. A name that this class uses itself raises it too.

    After `close`, reads and changes raise ClosedError. A few things do not raise, and show no old value: `repr` says
    that the state is closed, `bool` is true, ``==`` is true for the object itself only, and `hasattr` is false for each
    key. The same holds for containers that were taken from the state, and for a state that is not open yet.

    Called with an iterator of pairs, as `dataclasses.asdict` does with the class of each dict, it returns a plain dict,
    unless a subclass has an `__init__` of its own.

    Raises TypeError for an option of `open` among the defaults, StateFileError (a ValueError) when the content of the
    file cannot be used, and MissingPathError, NotAFileError, ReadOnlyError or UnreadableError (each an OSError) when
    the path cannot. Raises UnsupportedTypeError or UnsupportedValueError for a default that cannot be stored, and
    PatchedError if gevent or eventlet replaced the threads too late.
    """

    _store: store.Store  #: or a `_Closed`, which is a `Core` too

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if len(args) == 1 and isinstance(args[0], _PAIRS) and not kwargs and cls.__init__ is PersistedState.__init__:
            made: Any = MappedDict(args[0])
            return made  # type: ignore[no-any-return]
        state = super().__new__(cls)
        ops.set_slot(state, "_store", _NOT_OPEN)
        return state

    def __init__(self, path: str | os.PathLike[str], /, **defaults: Any) -> None:
        for name in defaults:
            if name in _OPTIONS:
                option = f"{name}={shown(defaults[name])}"
                raise TypeError(
                    f"{name} is an option of open: {type(self).__name__}.open(path, {option}). Nothing was opened. "
                    f"For a key of that name: {type(self).__name__}.open(path, defaults=dict({option}))"
                )
        self._open(path, defaults, {})

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        defaults: dict[Any, Any] | None = None,
        durability: Literal["process", "power"] = "process",
        lock_timeout: float | None = 10.0,
        locking: Any = "file",
        read_only: bool = False,
        fresh: float = 0.0,
        fs: engines.FileSystem | None = None,
    ) -> Self:
        """Open the state file at *path* with options. Here the options cannot collide with keys.

        - *defaults*: values to commit for the keys that are missing, at any depth of dicts. For a dict whose keys come
          and go, such as a list of work, use `setdefault`: a default brings back each key that was deleted. A default
          with the name of a method is logged as a warning, because only its item is the value: ``state["open"]``.
        - *durability*: with "process", a commit survives the death of the process. With "power", it has reached stable
          storage before the call returns.
        - *lock_timeout*: how many seconds a change waits for other writers, and a read for a transaction of another
          thread of this process. None waits without a limit.
        - *locking*: the lock that writers take: "file" (the state file itself), "filelock" or "portalocker" (these
          libraries, on PATH.lock), or a lock object of yours with `acquire` and `release`.
        - *read_only*: never write. No permission to write is needed then.
        - *fresh*: how many seconds old the value of a read may be, if the read is not in a transaction. With 0, the
          default, each read of a state on a server asks the server, which is one round trip. With 0.05, a read asks
          only if the last question was sent at least 50 ms ago. A read never lacks a commit of this process, and never
          goes back to an earlier commit. A file is always up to date, so any *fresh* is accepted there. If one process
          opens a state twice, the smaller *fresh* counts for both.
        - *fs*: the operating system; another one is for tests.

        Raises what calling the class raises. Also raises LockTimeout if another thread of this process has a
        transaction in that file open for longer than *lock_timeout*, ReadOnlyError for defaults that *read_only* does
        not allow to commit, and TypeError or ValueError for a wrong argument. `__init__` of a subclass is not called.
        """
        if durability not in ("process", "power"):
            raise ValueError(f'durability must be "process" or "power", not {durability!r}. Nothing was opened.')
        if defaults is not None and not isinstance(defaults, Mapping):
            raise TypeError(f"defaults must be a dict of keys and values, not {defaults!r}. Nothing was opened.")
        _refuse_timeout("lock_timeout", lock_timeout)
        _refuse_age(fresh)
        options: dict[str, Any] = {
            "durability": durability,
            "lock_timeout": lock_timeout,
            "locking": locking,
            "read_only": read_only,
            "fresh": fresh,
        }
        state = cls.__new__(cls)
        state._open(path, dict(defaults or {}), options, fs)
        return state

    def _open(
        self,
        path: str | os.PathLike[str],
        defaults: dict[Any, Any],
        options: dict[str, Any],
        fs: engines.FileSystem | None = None,
    ) -> None:
        text = os.fspath(path)
        if not isinstance(text, str):
            raise TypeError(
                f"the path of a state must be a str or an os.PathLike of one, not {type(text).__name__}. Nothing was "
                "opened."
            )
        if "\0" in text or not _is_name(text):
            raise ValueError(
                f"{text!r} is not a path: it contains a character that file names cannot contain. Nothing was opened."
            )
        try:
            absolute = text if engines.is_url(text) else os.path.abspath(text)
        except expected(FileNotFoundError) as error:
            message = f"{text}: the working directory of this program no longer exists. Nothing was opened."
            raise MissingPathError(message, path=text, errno=error.errno) from error
        # Before the file is touched, so that a refused default leaves no trace.
        taken = {
            check_key(key, "state"): take(value, functools.partial(place_text, (key,)), 1)
            for key, value in defaults.items()
        }
        settings: dict[str, Any] = {
            "durability": "process",
            "lock_timeout": 10.0,
            "locking": "file",
            "read_only": False,
            "fresh": 0.0,
            **options,
        }
        ops.set_slot(self, "_parent", ops.ROOT)
        ops.set_slot(self, "_key", None)
        ops.set_slot(self, "_reopen", (absolute, options, taken))
        try:
            core = store.shared(absolute, self, engine=engines.engine_of(absolute, fs), **settings)
            if taken and not core.read(_has_all, core.root, taken):
                self._commit_defaults(core, taken)
            _warn_about_methods(type(self), core.path, taken)
        except BaseException:
            self.__del__()
            ops.set_slot(self, "_store", _NOT_OPEN)
            raise

    def _commit_defaults(self, core: Core, defaults: dict[Any, Any]) -> None:
        try:
            with Transaction(core, None):
                _fill(core, core.root, defaults)
        except expected(ReadOnlyError) as error:
            message = (
                f"{core.path}: the state was opened read_only and lacks keys that have defaults. Nothing was changed. "
                "Leave the defaults out, and use get()."
            )
            raise ReadOnlyError(message, path=core.path) from error

    def transaction(self, timeout: float | None = None) -> Transaction:
        """A block whose changes are one commit: ``with state.transaction(): ...``. Also a decorator for a function.

        No other process or thread changes the state during the block, or sees its changes before its end. An exception
        undoes the block, and nothing is written. `rollback()` on what the block yields does the same without an
        exception. A block inside a block is a savepoint. *timeout*: seconds to wait for other writers, instead of
        `lock_timeout`. The block belongs to its thread: do not `await` or `yield` in it. Leaving it in another thread,
        or before a block inside it, rolls all of the transaction back and raises TransactionError.

        Entering raises LockTimeout when others write for too long, ReadOnlyError, ClosedError, InvalidEditError while
        an edit does not parse, and PatchedError. Leaving raises WriteError when the commit could not be written and was
        undone, DurabilityUnknown when it is committed but the sync failed, and EditConflict when it cannot be brought
        together with a save that came meanwhile.
        """
        if timeout is not None:
            _refuse_timeout("timeout", timeout)
        return Transaction(store_of(self), timeout)

    def snapshot(self) -> dict[Any, Any]:
        """A deep copy of the whole state, at one commit, in built-in types.

        Raises ClosedError after the close, and LockTimeout as every read does.
        """
        copied: dict[Any, Any] = self._store.read(ops.plain, self._store.root)
        return copied

    def vacuum(self) -> None:
        """Rewrite the file as one plain YAML document without a journal. pstate does it by itself when it pays.

        Raises LockTimeout, ReadOnlyError, TransactionError inside a transaction, and WriteError when the file could not
        be written; the state is unchanged then.
        """
        self._store.vacuum()

    def watch(
        self,
        path: str | Iterable[Any] | None = None,
        *,
        timeout: float | None = None,
        history: bool = False,
        now: bool = False,
    ) -> Watch:
        """The changes from now on, no matter who makes them: ``for change in state.watch("jobs[0].name"): ...``

        Each is a `Change`: its path, the old value and the new one, and its origin: "here" (this process), "other"
        (another process) or "edit" (a person). Changes arrive within 100 ms, in the order of the commits, and none is
        missed: a process that vacuums the file waits for those that watch it. Where it cannot (docs/guarantees.md,
        "Watching"), the commits of others between two vacuums arrive as one change of each value.

        *path*: only changes at this place, or in it: a string (``"jobs[-1].name"``) or keys (``("jobs", -1, "name")``).
        Setting a value to what it is already is not a change. *timeout*: end the iteration when nothing has changed for
        this many seconds. *now*: begin with the present values, as if they were new. *history*: begin with the changes
        of `history`; with *now*, the values from before them come first.

        The result is an iterator, also for ``async for``, that waits for the next change. It ends when the state is
        closed. Its `poll` does not wait. Raises TransactionError inside a transaction of the same thread, and TypeError
        or ValueError for a wrong path; iterating raises what reading the state does.
        """
        from pstate.watch import Watch

        if timeout is not None:
            _refuse_timeout("timeout", timeout)
        return Watch(self, path, timeout, history, now)

    def history(self, path: str | Iterable[Any] | None = None) -> Iterator[Change]:
        """The changes since the last vacuum, one commit after the other, each with the number of its `commit`.

        A vacuum, also the one at `close`, begins a new history: this is for debugging, not an archive. *path* as in
        `watch`. The `origin` of each is None, because a record does not say which process wrote it. Raises
        TransactionError inside a transaction of the same thread, and TypeError or ValueError for a wrong path.
        """
        from pstate.watch import history

        return history(self, path)

    def close(self, *, keep_journal: bool = False) -> None:
        """Leave one plain YAML document, if no other process is writing, and close the file. Idempotent.

        *keep_journal*: close the file as it is, because another program goes on with it.

        Using this object afterwards raises ClosedError. Another `PersistedState` of the same file stays open. Inside a
        transaction, closing the last one that is open in this process raises TransactionError; if another one is open,
        the block goes on through that one, no matter which of them began it. Raises LockTimeout if another thread's
        transaction lasts longer than `lock_timeout`; the state stays open then.
        """
        core = store_of(self)
        if not isinstance(core, _Closed):
            core.close(self, keep_journal)
            ops.set_slot(
                self, "_store", _Closed(core.path, f"{core.path}: the state was used after close()", "Open it again.")
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        core = getattr(self, "_store", None)
        if core is not None and not isinstance(core, _Closed):
            core.detach(self)

    @property
    def _thread_lock(self) -> Any:
        """The lock of `persistedstate` for atomic changes, between the threads of this process. Use `transaction`."""
        return store.ThreadLock(self._store)

    def __reduce__(self) -> tuple[Any, ...]:
        """A state pickles to "open this path again", for the processes of `multiprocessing`."""
        return _open_again, (type(self), *self._reopen)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.__reduce__()

    def __copy__(self) -> dict[Any, Any]:
        return self.snapshot()

    def __deepcopy__(self, memo: Any) -> dict[Any, Any]:
        return self.snapshot()


#: The options of `PersistedState.open`. A program that passed them to the class by mistake would make them keys.
_OPTIONS = frozenset(vars(PersistedState)["open"].__func__.__kwdefaults__)

PersistedState._internal = internal_names(PersistedState) | {"_reopen"}


def _is_name(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _refuse_timeout(name: str, timeout: Any) -> None:
    """Raise what is wrong with *timeout*, the argument called *name*."""
    if timeout is None:
        return
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, or None, not {timeout!r}. Nothing was done.")
    if timeout != timeout:
        raise ValueError(f"{name} must be a number of seconds, or None, not {timeout!r}. Nothing was done.")


def _refuse_age(fresh: Any) -> None:
    """Raise ValueError unless *fresh* is a finite number that is not negative. True would be a second."""
    if isinstance(fresh, bool) or not isinstance(fresh, (int, float)) or not 0 <= fresh < float("inf"):
        raise ValueError(
            f"fresh must be a number of seconds, 0 or more, not {fresh!r}. Nothing was opened. With 0, each read is up "
            "to date."
        )


def _has_all(node: Any, defaults: dict[Any, Any]) -> bool:
    """Whether the dict *node* has all keys of *defaults*, and so at any depth of dicts."""
    for key, default in defaults.items():
        value = dict.get(node, key, ops.ABSENT)
        if value is ops.ABSENT or (_is_deeper(value, default) and not _has_all(value, default)):
            return False
    return True


def _fill(core: Core, node: Any, defaults: dict[Any, Any]) -> None:
    """Put the keys that `_has_all` misses into *node*, within a transaction. Existing values stay, of any type."""
    for key, default in defaults.items():
        value = dict.get(node, key, ops.ABSENT)
        if value is ops.ABSENT:
            core.put(node, key, default)
        elif _is_deeper(value, default):
            _fill(core, value, default)


def _is_deeper(value: Any, default: Any) -> bool:
    return isinstance(default, dict) and isinstance(value, dict)


#: By class and place, the defaults that were warned about.
_warned: set[tuple[str, str]] = set()


def _warn_about_methods(cls: type, path: str, defaults: dict[Any, Any], around: tuple[Any, ...] = ()) -> None:
    """Warn about each of *defaults* with the name of a method of *cls*, once for each class and place.

    A log line and not a Python warning: the key works as an item, and a program that makes warnings errors must not
    fail because of it. A subclass may give such a key a property of its own, which is not a method.
    """
    for key, default in defaults.items():
        if type(key) is str and key[:1] != "_" and callable(getattr(cls, key, None)):
            place, item = f"{place_text(around)}.{key}", f'{place_text(around)}["{key}"]'
            if (cls.__qualname__, place) not in _warned:
                _warned.add((cls.__qualname__, place))
                logger.warning(
                    "%s: the default %r has the name of a method of %s, so %s is that method. Use the item: %s",
                    path,
                    key,
                    cls.__name__,
                    place,
                    item,
                )
        if isinstance(default, dict):
            _warn_about_methods(MappedDict, path, default, (*around, key))


def _open_again(
    kind: type[PersistedState], path: str, options: dict[str, Any], defaults: dict[Any, Any] | None = None
) -> PersistedState:
    """What unpickling calls. The *defaults* are for `pstate.reset`; the first open has committed them."""
    state = kind.open(path, **options)
    ops.set_slot(state, "_reopen", (path, options, defaults or {}))
    return state


def core_of(node: Any) -> Core:
    """The store of *node*, a state or a container in one, or the object that replaces it while that is not open.

    Raises TypeError for anything else.
    """
    if not isinstance(node, Mapped):
        raise TypeError(
            f"the first argument must be a state, or a container in one, not a {type(node).__name__}. Nothing was done."
        )
    core: Core = store_of(node)
    return core


def defaults_of(state: Any) -> dict[Any, Any]:
    """The defaults that *state* was opened with. Not to be changed. Raises TypeError for what is not a state."""
    core = core_of(state)
    if not isinstance(state, PersistedState):
        raise TypeError(
            f"{core.path}: only the state has defaults, and this is a {type(state).__name__} in it. Nothing was "
            "changed. Pass the state, and the path."
        )
    if core is _NOT_OPEN:
        core.read(bool)
    defaults: dict[Any, Any] = state._reopen[2]
    return defaults


def path_of(state: Mapped) -> str:
    """The path of the file of *state*, or of the state that a container is in, as error messages name it.

    It is absolute, and still known after the close. Raises TypeError for anything but a state or a container in one,
    and ClosedError for a state that was never open.
    """
    core = core_of(state)
    if not core.path:
        core.read(bool)
    return core.path


def is_closed(state: Mapped) -> bool:
    """Whether *state*, or the state that a container is in, is not open: it was closed, or never opened.

    Raises TypeError for anything but a state or a container in one.
    """
    return core_of(state).closed


class _Closed:
    """Replaces the store of a state that is not open: a `Core` that refuses everything."""

    view = None
    changes = None
    lock_timeout = None
    is_mine = False
    closed = True

    def __init__(self, path: str, problem: str, advice: str) -> None:
        self.path = path
        self.message = f"{problem}. Nothing was changed. {advice}"
        self.fresh = self._nothing

    def _nothing(self) -> None:
        return None

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise ClosedError(self.message, path=self.path)

    read = put = mutate = alone = vacuum = close = detach = _refuse
    enter = end = leave_block = end_block = end_amiss = give_up = _refuse

    @property
    def root(self) -> Any:
        return self._refuse()

    @property
    def mutex(self) -> Any:
        raise ClosedAttributeError(self.message, path=self.path)  # `hasattr(state, "_thread_lock")` must not raise

    log = mutex


_NOT_OPEN: Core = _Closed("", "a state was used before it was opened", "A subclass calls super().__init__(path) first.")


class Transaction:
    """The block of a transaction, from `PersistedState.transaction`."""

    __slots__ = ("__weakref__", "_changes", "_core", "_mark", "_timeout")

    def __init__(self, core: Core, timeout: float | None) -> None:
        self._changes: Pending | None = None
        self._mark: Savepoint | None = None
        self._core = core
        self._timeout = timeout

    # Asynchronous exceptions come at the beginning of Python functions and after calls. So each step of the two methods
    # below is noted before the next call, and `__del__` finds in the same attributes which steps are left.

    def __enter__(self) -> Self:
        if self._changes is not None and self._is_open:
            raise TransactionError(
                f"{self._core.path}: this transaction is already under way. Nothing was changed. Begin another one: "
                "with state.transaction(): ..."
            )
        core = self._core
        changes = self._changes = Pending()
        self._mark = None
        try:
            core.enter(self._timeout, self)
        except BaseException:
            if core.changes is changes:
                self.__exit__(GeneratorExit, None, None)
            self._changes = None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        core, changes = self._core, self._changes
        if changes is None:
            return
        mark = self._mark
        depth = mark[3] if mark else 1
        if changes.depth > depth and traceback is not None:
            self._end_inner(traceback)
        if changes.depth != depth or changes.spoiled:
            # The note stays, so that the next block that is left raises as well.
            core.end_amiss(changes, depth, kind is not None)
            return
        unsettled = None
        try:
            if mark is not None:
                core.leave_block(changes, mark, kind is not None)
            else:
                unsettled = core.end(changes, kind is not None)
        except BaseException:
            try:
                self._give_up(changes)
            except BaseException:
                self._give_up(changes)
                raise
            raise
        # If this thread has ended a block of another one, the note stays for that as well.
        self._changes = changes if changes.spoiled else None  # type: ignore[redundant-expr]
        if unsettled is not None:
            core.log.settle(unsettled)

    def _give_up(self, changes: Pending) -> None:
        """Leave the block, after an asynchronous exception has kept us from that."""
        if self._mark is None:
            self._core.give_up(changes)
        elif self._is_open:
            self._core.leave_block(changes, self._mark, True)
        if not self._is_open and not changes.spoiled:
            self._changes = None

    def _end_inner(self, traceback: TracebackType | None) -> None:
        """End the inner blocks whose `__exit__` an asynchronous exception has cut off at its beginning."""
        while traceback is not None:
            frame = traceback.tb_frame
            if frame.f_code is _EXIT:
                inner: Any = frame.f_locals.get("self")
                if inner is not self and inner._changes is self._changes and inner._is_open:
                    inner.__exit__(GeneratorExit, None, None)
            traceback = traceback.tb_next

    @property
    def _is_open(self) -> bool:
        changes = self._changes
        return (
            changes is not None
            and self._core.changes is changes
            and changes.is_open(self._mark[3] if self._mark else 1)
        )

    def __del__(self) -> None:
        # Nothing else would leave it: an exception just before __exit__ keeps that from running, and a generator may be
        # forgotten. An exception may also have kept `__init__` from setting anything.
        changes = getattr(self, "_changes", None)
        if changes is not None and self._is_open:
            lost = len(changes.operations)
            self.__exit__(GeneratorExit, None, None)
            if lost:
                logger.error(
                    "%s: a transaction was abandoned before its end, and rolled back. Its changes are not in the file.",
                    self._core.path,
                )

    def rollback(self) -> None:
        """Undo the block without an exception. The rest of the block can read; a change in it raises."""
        if self._changes is None:
            raise TransactionError(f"{self._core.path}: rollback() outside the block. Nothing was changed.")
        self._core.end_block(self._changes, self._mark)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make every call of *function* one transaction."""
        import inspect

        if (
            inspect.iscoroutinefunction(function)
            or inspect.isgeneratorfunction(function)
            or inspect.isasyncgenfunction(function)
        ):
            raise TransactionError(
                f"{self._core.path}: a transaction cannot decorate a coroutine or a generator, because it would end "
                "before the body runs. Use a with statement inside, around code that does not await or yield."
            )
        core, timeout = self._core, self._timeout

        @functools.wraps(function)
        def in_transaction(*args: P.args, **kwargs: P.kwargs) -> R:
            with Transaction(core, timeout):
                return function(*args, **kwargs)

        return in_transaction


#: The code that `_end_inner` looks for in a traceback. `speed` may have replaced the method.
_EXIT = Transaction.__exit__.__code__
