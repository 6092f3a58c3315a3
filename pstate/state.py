"""The public `PersistedState`: a state file as an object, with defaults, transactions and an end.

Thin: what a container can do is in `memory`, how a change reaches the file in `store`.
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

#: What a copy of a dict is made of, by code that does not know its class, and what is never a path. A dict is not among
#: them: a program that takes it for the argument of `PersistedState` would work with a state that is not kept.
_PAIRS = (GeneratorType, map, zip, ItemsView, MappedDict)


class PersistedState(MappedDict):
    """A mapping that is one YAML file. Every change of it, at any depth, is committed when the call returns.

    ``PersistedState(path, **defaults)`` opens the file, or begins a new one, and commits *defaults* for the keys that
    are missing, also in dicts in it, at any depth, in one commit. What is there stays, of whatever kind it is, and
    nothing is added to a list or a set. Keys are read and written as items or, where the name is no method, as
    attributes. Names with a leading underscore are ordinary Python attributes, never state. Subclasses may add methods,
    descriptors, such attributes, and values that are annotated with ClassVar. Any other value of a class would hide the
    key of its name: it raises ReservedNameError when the class is defined, and so does a name that this class uses
    itself.

    After `close`, reads and changes raise ClosedError. `repr` says that the state is closed, `bool` is true, ``==`` is
    true for the object itself only, and `hasattr` knows no key: none of them raises, and none tells an old value. So it
    is for containers that were taken from the state, and for a state that is not open yet.

    Called with an iterator of pairs, as `dataclasses.asdict` does with the class of each dict, it returns a plain dict,
    unless a subclass has an `__init__` of its own.

    Raises TypeError for an option of `open` among the defaults, StateFileError (a ValueError) when the content of the
    file cannot be used, MissingPathError, NotAFileError, ReadOnlyError or UnreadableError (each an OSError) when the
    path cannot, UnsupportedTypeError or UnsupportedValueError for a default that is no state, PatchedError where gevent
    or eventlet came too late.
    """

    _store: store.Store  #: or a `_Closed`, which is a `Core` as well

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
        fs: engines.FileSystem | None = None,
    ) -> Self:
        """Open the state file at *path*, with options, which therefore never collide with a key.

        - *defaults*: values to commit for the keys that are missing, at any depth of dicts. For a dict whose keys come
          and go, such as a list of work, use `setdefault`: a default brings back each key that was deleted.
        - *durability*: a commit survives the death of the process ("process"), or has reached stable storage before the
          call returns ("power").
        - *lock_timeout*: how many seconds a change waits for other writers, and a read for a transaction of another
          thread of this process; None for ever.
        - *locking*: who excludes whom, "file" (the state file itself), "filelock" or "portalocker" (those libraries, on
          PATH.lock), or a lock object of yours with `acquire` and `release`.
        - *read_only*: never write, and need no permission to.
        - *fs*: the operating system; another one is for tests.

        Raises what calling the class raises, LockTimeout where another thread of this process has a transaction in that
        file open for longer than *lock_timeout*, ReadOnlyError also for defaults that *read_only* does not let it
        commit, and TypeError or ValueError for an argument that is none of these. `__init__` of a subclass is not
        called.
        """
        if durability not in ("process", "power"):
            raise ValueError(f'durability is "process" or "power", not {durability!r}. Nothing was opened.')
        if defaults is not None and not isinstance(defaults, Mapping):
            raise TypeError(f"defaults is a dict of keys and values, not {defaults!r}. Nothing was opened.")
        _refuse_timeout("lock_timeout", lock_timeout)
        options: dict[str, Any] = {
            "durability": durability,
            "lock_timeout": lock_timeout,
            "locking": locking,
            "read_only": read_only,
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
                f"the path of a state is a str or an os.PathLike of one, not {type(text).__name__}. Nothing was opened."
            )
        if "\0" in text or not _is_name(text):
            raise ValueError(f"{text!r} is no path: it holds what no name of a file can hold. Nothing was opened.")
        try:
            absolute = text if engines.is_url(text) else os.path.abspath(text)
        except expected(FileNotFoundError) as error:
            message = f"{text}: the folder that this program works in does not exist any more. Nothing was opened."
            raise MissingPathError(message, path=text, errno=error.errno) from error
        # Before the file is touched: a refused default leaves nothing behind.
        taken = {
            check_key(key, "state"): take(value, functools.partial(place_text, (key,)), 1)
            for key, value in defaults.items()
        }
        settings: dict[str, Any] = {
            "durability": "process",
            "lock_timeout": 10.0,
            "locking": "file",
            "read_only": False,
            **options,
        }
        ops.set_slot(self, "_parent", ops.ROOT)
        ops.set_slot(self, "_key", None)
        ops.set_slot(self, "_reopen", (absolute, options, taken))
        try:
            core = store.shared(absolute, self, engine=engines.engine_of(absolute, fs), **settings)
            if taken and not core.read(_has_all, core.root, taken):
                self._commit_defaults(core, taken)
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
                f"{core.path}: was opened read_only and lacks keys that have defaults. Nothing was changed. "
                "Leave the defaults out, and use get()."
            )
            raise ReadOnlyError(message, path=core.path) from error

    def transaction(self, timeout: float | None = None) -> Transaction:
        """A block whose changes are one commit: ``with state.transaction(): ...``, or a decorator for a function.

        No other process or thread changes the state within the block, or sees its changes before its end. An exception
        undoes the block and writes nothing; so does `rollback()` on what the block yields, without an exception. A
        block inside a block is a savepoint. *timeout*: seconds to wait for other writers, instead of `lock_timeout`.
        The block belongs to its thread: do not `await` or `yield` in it. Leaving it in another thread, or before a
        block inside of it, rolls all of the transaction back and raises TransactionError.

        Entering raises LockTimeout when others write for too long, ReadOnlyError, ClosedError, InvalidEditError while
        a person's edit does not parse, and PatchedError. Leaving raises WriteError when the commit could not be written
        and is undone, DurabilityUnknown when it is committed and the sync failed, EditConflict when a save that came
        meanwhile cannot be brought together with it.
        """
        if timeout is not None:
            _refuse_timeout("timeout", timeout)
        return Transaction(store_of(self), timeout)

    def snapshot(self) -> dict[Any, Any]:
        """The whole state as it is at one commit, a deep copy in built-in types.

        Raises ClosedError after the close, and LockTimeout as every read.
        """
        copied: dict[Any, Any] = self._store.read(ops.plain, self._store.root)
        return copied

    def vacuum(self) -> None:
        """Write the file anew as one plain YAML document, without a journal. Happens by itself where it pays.

        Raises LockTimeout, ReadOnlyError, TransactionError inside of a transaction, and WriteError when the file could
        not be written: the state is unchanged then.
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
        """The changes from now on, whoever makes them: ``for change in state.watch("jobs[0].name"): ...``

        Each is a `Change`: its path, the old value and the new one, and its origin: "here" (this process), "other" (the
        commit of another one) or "edit" (a person's). They come within 100 ms, in the order of the commits, and none is
        missed: who vacuums the file waits for those who watch it. Where that cannot be (docs/guarantees.md,
        "Watching"), what others have committed between two vacuums is told as one change of each value.

        *path*: only what changes there, or in it: a text (``"jobs[-1].name"``) or keys (``("jobs", -1, "name")``).
        What is set to the value that it has already is no change. *timeout*: end the iteration when nothing has changed
        for so many seconds. *now*: begin with what is there, as if it had just come. *history*: begin with what
        `history` tells; with *now*, what was there before that comes first.

        An iterator, which waits for the next change, also for ``async for``. It ends when the state is closed. Its
        `poll` waits for nothing. Raises TransactionError inside of a transaction of the same thread, TypeError or
        ValueError for what is no path; iterating raises what reading the state does.
        """
        from pstate.watch import Watch

        if timeout is not None:
            _refuse_timeout("timeout", timeout)
        return Watch(self, path, timeout, history, now)

    def history(self, path: str | Iterable[Any] | None = None) -> Iterator[Change]:
        """The changes since the last vacuum, one commit after the other, each with the number of its `commit`.

        A vacuum, which also comes with `close`, begins a new one: this is for debugging, not an archive. *path* as in
        `watch`. The `origin` of each is None: a record does not say who has written it. Raises TransactionError inside
        of a transaction of the same thread, TypeError or ValueError for what is not a path.
        """
        from pstate.watch import history

        return history(self, path)

    def close(self, *, keep_journal: bool = False) -> None:
        """Leave one plain YAML document, if no other process is writing, and let go of the file. Idempotent.

        *keep_journal*: let go of the file as it is, where another program goes on with it.

        Using this object afterwards raises ClosedError. Another `PersistedState` of the same file stays open. Inside a
        transaction, the last one that is open in this process is not closed: that raises TransactionError. With
        another one open the block goes on through that one, whichever of them began it. Raises LockTimeout where
        another thread's transaction lasts longer than `lock_timeout`: the state is open still.
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
        """What `persistedstate` offers for atomic changes: excludes the threads of this process. Use `transaction`."""
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


#: The options of `PersistedState.open`. A program that takes them for arguments of the class would make keys of them.
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
        raise TypeError(f"{name} is a number of seconds, or None, not {timeout!r}. Nothing was done.")
    if timeout != timeout:
        raise ValueError(f"{name} is a number of seconds, or None, not {timeout!r}. Nothing was done.")


def _has_all(node: Any, defaults: dict[Any, Any]) -> bool:
    """Whether the dict *node* has all keys of *defaults*, and each dict in it those of the dict that is its default."""
    for key, default in defaults.items():
        value = dict.get(node, key, ops.ABSENT)
        if value is ops.ABSENT or (_is_deeper(value, default) and not _has_all(value, default)):
            return False
    return True


def _fill(core: Core, node: Any, defaults: dict[Any, Any]) -> None:
    """Give *node* what `_has_all` misses, within a transaction. What is there stays, of whatever kind it is."""
    for key, default in defaults.items():
        value = dict.get(node, key, ops.ABSENT)
        if value is ops.ABSENT:
            core.put(node, key, default)
        elif _is_deeper(value, default):
            _fill(core, value, default)


def _is_deeper(value: Any, default: Any) -> bool:
    return isinstance(default, dict) and isinstance(value, dict)


def _open_again(
    kind: type[PersistedState], path: str, options: dict[str, Any], defaults: dict[Any, Any] | None = None
) -> PersistedState:
    """What a pickle calls. The *defaults* were committed when they were given; they are for `pstate.reset`."""
    state = kind.open(path, **options)
    ops.set_slot(state, "_reopen", (path, options, defaults or {}))
    return state


def core_of(node: Any) -> Core:
    """The store of *node*, a state or a container in one, or what is in its place when that is not open.

    Raises TypeError for anything else.
    """
    if not isinstance(node, Mapped):
        raise TypeError(f"not a state, nor a container in one, but a {type(node).__name__}. Nothing was done.")
    core: Core = store_of(node)
    return core


def defaults_of(state: Any) -> dict[Any, Any]:
    """The defaults that *state* was opened with. Not to be changed. Raises TypeError for what is not a state."""
    core = core_of(state)
    if not isinstance(state, PersistedState):
        raise TypeError(
            f"{core.path}: the defaults belong to the state, and this is a {type(state).__name__} in it. Nothing was "
            "changed. Pass the state itself, and the path."
        )
    if core is _NOT_OPEN:
        core.read(bool)
    defaults: dict[Any, Any] = state._reopen[2]
    return defaults


def path_of(state: Mapped) -> str:
    """The path of the file of *state*, or of the state that a container is in, as error messages name it.

    It is absolute, and stays known after the close. Raises TypeError for what is not a state or a container in one, and
    ClosedError for a state that was never open.
    """
    core = core_of(state)
    if not core.path:
        core.read(bool)
    return core.path


def is_closed(state: Mapped) -> bool:
    """Whether *state*, or the state that a container is in, cannot be used: it was closed, or is not open yet.

    Raises TypeError for what is not a state or a container in one.
    """
    return core_of(state).closed


class _Closed:
    """What a state has in the place of its store when it is not open: a `Core` that refuses everything."""

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

    # Asynchronous exceptions come at the beginning of Python functions and behind calls: so in the two methods below,
    # what is done is noted before the next call, and `__del__` finds by the same attributes what is left to do.

    def __enter__(self) -> Self:
        if self._changes is not None and self._is_open:
            raise TransactionError(
                f"{self._core.path}: this transaction is already under way. Nothing was changed. Ask for another one: "
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
            # Noted on, so that whoever leaves it next is told as well.
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
        self._changes = None
        if unsettled is not None:
            core.log.settle(unsettled)

    def _give_up(self, changes: Pending) -> None:
        """Leave what an asynchronous exception has kept us from leaving."""
        if self._mark is None:
            self._core.give_up(changes)
        elif self._is_open:
            self._core.leave_block(changes, self._mark, True)
        if not self._is_open and not changes.spoiled:
            self._changes = None

    def _end_inner(self, traceback: TracebackType | None) -> None:
        """End the blocks inside of this one whose `__exit__` an asynchronous exception has cut off at its beginning."""
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
        # Nobody else would leave it: an exception on the doorstep of __exit__ keeps it from running, and a generator
        # may be forgotten. One may keep `__init__` from setting anything, too.
        changes = getattr(self, "_changes", None)
        if changes is not None and self._is_open:
            lost = len(changes.operations)
            self.__exit__(GeneratorExit, None, None)
            if lost:
                logger.error("%s: a transaction was cut off before its end and rolled back", self._core.path)

    def rollback(self) -> None:
        """Undo the block, without an exception. What is left of it can read, but changes nothing: that raises."""
        if self._changes is None:
            raise TransactionError(f"{self._core.path}: rollback() outside of the block. Nothing was changed.")
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
                f"{self._core.path}: a transaction cannot decorate a coroutine or generator: it would end before its "
                "body runs. Use the with statement inside, around code that does not await or yield."
            )
        core, timeout = self._core, self._timeout

        @functools.wraps(function)
        def in_transaction(*args: P.args, **kwargs: P.kwargs) -> R:
            with Transaction(core, timeout):
                return function(*args, **kwargs)

        return in_transaction


#: What is looked for in a traceback. The method itself may be another one by now: see `speed`.
_EXIT = Transaction.__exit__.__code__
