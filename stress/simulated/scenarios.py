"""The scenarios that are tried exhaustively: few processes, few steps, every schedule of them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from zlib import crc32

from pstate import PersistedState
from pstate.errors import PStateError, StateFileError, WriteError
from pstate.file.limits import LOOK_INTERVAL
from pstate.state import Transaction
from stress.check import BrokenPromise
from stress.simulated.judge import opened
from stress.simulated.world import PATH, PERSON, Actor, Scenario, World

Body = Callable[[Actor], None]

POWER = {"durability": "power"}


def commits(*tokens: str) -> Body:
    def body(actor: Actor) -> None:
        for token in tokens:
            actor.commit(token)

    return body


def looks(number: int) -> Body:
    def body(actor: Actor) -> None:
        for _ in range(number):
            actor.look()

    return body


def transaction(*tokens: str) -> Body:
    return lambda actor: actor.transaction(*tokens)


def increments(actor: Actor) -> None:
    """Read, then write what follows from it: two that overlap would find the same number."""

    assert actor.state is not None
    with actor.state.transaction():
        token = f"{actor.name}{len(actor.state.log)}"
        actor.attempted.append(token)
        actor.state.log.append(token)
    actor.acknowledged.append(token)


def in_order(world: World) -> None:
    """No increment has built on a number that another one had built on."""
    for number, token in enumerate(opened(world.disk.names[PATH].content)):
        if "end" not in token and token[1:] != str(number):
            raise BrokenPromise(f"{token} is at place {number}: it was built on a state that was not the newest one")


def vacuums(actor: Actor) -> None:
    actor.vacuum()


def opens(*then: Body) -> Body:
    def body(actor: Actor) -> None:
        actor.open()
        for each in then:
            each(actor)

    return body


def follows(actor: Actor) -> None:
    actor.follow()


def begins_to_watch(actor: Actor) -> None:
    actor.begin_watch()


def hears(actor: Actor) -> None:
    actor.hear()


def opens_without_defaults(actor: Actor) -> None:
    actor.open(defaults=None)


def becomes_a_daemon(content: Callable[[Actor], bytes], locked: bool = True) -> Body:
    return lambda actor: actor.become_a_daemon(content(actor), locked)


def of_the_same_size(actor: Actor) -> bytes:
    return b"=" * len(actor.world.disk.names[PATH].content)


def empty(actor: Actor) -> bytes:
    return b""


def becomes_a_daemon_in_a_transaction(actor: Actor) -> None:
    """The lock went with the descriptor, so the block is undone."""
    assert actor.state is not None
    actor.attempted.append("undone")
    try:
        with actor.state.transaction():
            actor.state.log.append("undone")
            actor.become_a_daemon(b"", locked=True)
    except WriteError:
        actor.refused.append("undone")
    else:
        raise BrokenPromise(f"{actor.name} committed without the lock")


def begins_the_log(actor: Actor) -> None:
    actor.commit("a1", lambda state: state.__setitem__("log", ["a1"]))


def log_is_as_it_was(world: World) -> None:
    """A daemon has its log as it made it: not a byte more, its lock, its descriptor."""
    for actor in world.actors.values():
        log = actor.log
        if log is None:
            continue
        if log.inode.content.strip(b"="):
            raise BrokenPromise(f"{actor.name} has written {log.inode.content!r} into another file of its program")
        if not actor.system.dead and log.inode.holder is not actor.log_holder:
            raise BrokenPromise(f"{actor.name} has locked or unlocked another file of its program")
        if not actor.system.dead and log not in actor.system.descriptors.values():
            raise BrokenPromise(f"{actor.name} has closed another file of its program")


def closes(actor: Actor) -> None:
    actor.close()


def time_passes(actor: Actor) -> None:
    """The last look at the path is too old by now."""
    actor.system.now += 2 * LOOK_INTERVAL


# ------------------------------------------------------------------ a person and an editor


def _edit(actor: Actor) -> bytes:
    """A key of its own for each save, and a note of it for those who judge."""
    actor.saves += 1
    return b"person%d: 1\n" % actor.saves


def _read(actor: Actor) -> bytes:
    fd = actor.system.open(PATH, os.O_RDONLY, 0)
    content = actor.system.pread(fd, 1 << 20, 0)
    actor.system.close(fd)
    return content


def _write(actor: Actor, path: str, flags: int, *pieces: bytes) -> None:
    fd = actor.system.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    for piece in pieces:
        actor.system.write(fd, piece)
    actor.system.close(fd)


def saves_by_rename(actor: Actor) -> None:
    """vim, emacs, sed -i: a new file is renamed over the old one."""
    _write(actor, PATH + "~new", os.O_EXCL, _edit(actor) + _read(actor))
    actor.system.rename(PATH + "~new", PATH)
    actor.saved = actor.saves


def saves_with_backup(actor: Actor) -> None:
    """The old file is moved away (git deletes it), and a new one written at its path, where nothing may be then."""
    content = _edit(actor) + _read(actor)
    actor.world.busy_editors.add(actor.name)
    actor.system.rename(PATH, PATH + ".conflict-backup~")
    _save(actor, os.O_CREAT | os.O_EXCL, content)


def saves_in_place(actor: Actor) -> None:
    """VS Code, nano: the file is emptied and written in pieces; faster than anybody who waits for it to be over."""
    content = _edit(actor) + _read(actor)
    actor.world.busy_editors.add(actor.name)
    _save(actor, 0, content[:14], content[14:])


def _save(actor: Actor, flags: int, *pieces: bytes) -> None:
    fd = actor.system.open(PATH, os.O_WRONLY | os.O_TRUNC | flags, 0o644)
    for piece in pieces:
        actor.system.write(fd, piece)
    if actor.system.descriptors[fd].inode is actor.world.disk.names.get(PATH):
        # Otherwise a vacuum came in between, and the save is lost: nobody can promise more.
        actor.saved = actor.saves
    actor.world.busy_editors.discard(actor.name)
    actor.system.close(fd)


def saves_a_stale_copy(actor: Actor) -> None:
    """What was read long ago: `stale` is set when the scenario begins."""
    _write(actor, PATH + "~new", os.O_EXCL, _edit(actor) + dict(actor.world.scenario.files)[PATH])
    actor.system.rename(PATH + "~new", PATH)
    actor.saved = actor.saves


def saves_a_new_document(actor: Actor) -> None:
    """A whole new document, written in place. It ends in an element of a list, so no trailer may come after it."""
    _save(actor, 0, _edit(actor) + b"log:\n- before\n")


def deletes(actor: Actor) -> None:
    actor.system.unlink(PATH)


def after_a_look(name: str, does: Body, **others: Body) -> Scenario:
    """A read finds what *does* has left at the path; the commit that comes next must not go past it."""
    body = _program(commits("a1"), time_passes, does, looks_again, commits("a2"), _is_at_the_path)
    return Scenario(f"{name}, a look, a commit", {"a": body, **others}, opened=("a", *others), edited=True, kills=0)


def looks_again(actor: Actor) -> None:
    actor.look_again()


def _is_at_the_path(actor: Actor) -> None:
    lacking = set(actor.acknowledged) - set(opened(actor.world.disk.names[PATH].content))
    if lacking:
        raise BrokenPromise(f"{sorted(lacking)} were acknowledged, and are not in the file at the path")


EDITORS: dict[str, Body] = {
    "saved by rename": saves_by_rename,
    "saved with a backup": saves_with_backup,
    "saved in place": saves_in_place,
    "a stale copy saved": saves_a_stale_copy,
}


def edits_are_there(world: World) -> None:
    """The person's last save that came to its end is in the state, or in a file beside it that a conflict names."""
    number = world.actors[PERSON].saved
    if number and not any(b"person%d: 1" % number in inode.content for inode in world.disk.names.values()):
        raise BrokenPromise(f"edit {number} is gone: {world.disk.files()}")


def edited(name: str, save: Body, options: dict[str, Any] | None = None, **others: Body) -> Scenario:
    return Scenario(
        f"{name}, {' and '.join(others)}",
        {PERSON: save, **others},
        opened=tuple(others),
        edited=True,
        options=options or {},
        tick=1e-6,
        fair=edits_are_there,
    )


def three(scenario: Scenario) -> Scenario:
    """A person and two programs, who have more schedules than can be followed: but few bugs need many switches."""
    return replace(scenario, kills=0, switches=3)


# ------------------------------------------------------------------ all of them

TORN = {PATH: b'log: []\n... # pstate 1 61400009 0000000008 4ee36d3c b0070001 p\n--- [["insert",["log"],0,'}
ORPHANED = {
    PATH: b"log: []\n--- # pstate moved 00000000 0000000008 4ee36d3c 0000000000 4ee36d3c\n",
    "/.state.yaml.swap": b"log: []\n",
    "/.state.yaml.vacuum": b"lo",
}


def both(first: str, second: str, **more: Any) -> Scenario:
    """Two processes that each commit once."""
    name = more.pop("name", "two writers")
    return Scenario(name, {"a": commits(first), "b": commits(second)}, opened=("a", "b"), **more)


def tries(actor: Actor, body: Body) -> None:
    """Do *body*, which may be refused where calls fail or a person saves."""
    try:
        body(actor)
    except PStateError as error:
        scenario = actor.world.scenario
        if not scenario.failures and not (scenario.edited and isinstance(error, StateFileError)):
            raise
        actor.conflicts.append(error)


def undoes(actor: Actor) -> None:
    """A commit, then a transaction that changes order and length, and ends in an exception."""
    assert actor.state is not None
    actor.transaction("a3", "a1", "a2")

    class Undone(Exception):
        pass

    with contextlib.suppress(Undone), actor.state.transaction():
        actor.state.log.sort()
        actor.state.log.append("undone")
        raise Undone
    actor.look()
    actor.commit("a4")


def forks(actor: Actor) -> None:
    """Fork in a transaction; the child is unwound, as `sys.exit` does it, then uses the state itself."""

    def child(actor: Actor, left: Transaction) -> None:
        left.__exit__(SystemExit, SystemExit(), None)
        actor.commit("c1")
        actor.look()

    def change(state: PersistedState) -> None:
        with state.transaction() as transaction:
            state.log.append("a1")
            actor.fork("child", transaction, child)
            state.log.append("a2")

    actor.groups.append({"a1", "a2"})
    actor.change(("a1", "a2"), change)


def vacuums_or_not(actor: Actor) -> None:
    """An edit may come in between."""
    tries(actor, vacuums)


def around_a_vacuum(actor: Actor) -> None:
    actor.commit("a1")
    vacuums_or_not(actor)
    actor.commit("a2")


def _program(*steps: Body) -> Body:
    def body(actor: Actor) -> None:
        for step in steps:
            step(actor)

    return body


def watched(name: str, *, a: Body, w: Body | None = None, v: Body | None = None, **more: Any) -> Scenario:
    """Two or three programs; "w" watches, and does something of its own before it only follows."""
    bodies = {"w": _program(w, follows) if w is not None else follows, "a": a}
    if v is not None:
        bodies["v"] = v
    opened = tuple(bodies)
    if PERSON in more:
        bodies[PERSON] = more.pop(PERSON)
    return Scenario(f"watch: {name}", bodies, **{"opened": opened, "watching": ("w",), **more})


A = ("a",)
AR = ("a", "r")
AV = ("a", "v")
STARVED: dict[str, Any] = {"read_only": ("w",), "slow": True}
NEW: dict[str, Any] = {"files": {}, "options": {"defaults": {"log": []}}}

JOURNALED = {
    PATH: b'log: []\n... # pstate 1 61400009 0000000008 4ee36d3c b0070001 p\n--- [["insert",["log"],0,"before"]]\n'
    b"... # %08x\n" % crc32(b'[["insert",["log"],0,"before"]]', 0x61400009)
}
BARE = {PATH: b"log:\n- before\n"}  # another line could be an element of the list
ENDLESS = {PATH: b"log: []"}  # rewritten by the first commit
EMPTY = {PATH: b""}
FULL_SECTOR = {PATH: b"log: []\nfill: " + 420 * b"x" + b"\n"}

SCENARIOS = [
    both("a1", "b1", kills=2, power=True),
    Scenario("two writers, three commits", {"a": commits("a1", "a2"), "b": commits("b1")}, opened=("a", "b")),
    Scenario("two writers append to a clean file", {"a": opens(commits("a1")), "b": opens(commits("b1"))}),
    Scenario("increments", {"a": increments, "b": increments}, opened=("a", "b"), fair=in_order),
    Scenario("an empty file, writer and vacuum", {"a": commits("a1"), "v": vacuums}, EMPTY, opened=AV),
    Scenario("a file without a trailer, writer and vacuum", {"a": commits("a1"), "v": vacuums}, BARE, opened=AV),
    Scenario("a file without a trailer, vacuum and reader", {"v": vacuums, "r": looks(2)}, BARE, opened=("v", "r")),
    Scenario(
        "an empty file, vacuum and commit, reader",
        {"v": _program(vacuums, commits("v1")), "r": looks(2)},
        EMPTY,
        opened=("v", "r"),
    ),
    Scenario(
        "a file without a trailer, vacuum and commit, reader",
        {"v": _program(vacuums, commits("v1")), "r": looks(2)},
        BARE,
        opened=("v", "r"),
    ),
    Scenario(
        "no final newline, writer and reader",
        {"a": commits("a1", "a2"), "r": looks(2)},
        ENDLESS,
        opened=AR,
        kills=0,
        switches=3,
    ),
    Scenario(
        "no final newline, two writers",
        {"a": commits("a1", "a2"), "b": commits("b1")},
        ENDLESS,
        opened=("a", "b"),
        switches=3,
    ),
    Scenario("writer and vacuum", {"a": commits("a1"), "v": vacuums}, opened=AV, power=True),
    Scenario("two commits and vacuum", {"a": commits("a1", "a2"), "v": vacuums}, opened=AV),
    Scenario("two vacuums", {"a": vacuums, "b": vacuums}, opened=("a", "b"), power=True),
    Scenario("writer and reader", {"a": commits("a1", "a2"), "r": looks(2)}, opened=AR),
    Scenario("vacuum and reader", {"a": vacuums, "r": looks(2)}, opened=AR),
    Scenario("transaction and reader", {"a": transaction("a1", "a2"), "r": looks(2)}, opened=AR, power=True),
    Scenario("two transactions", {"a": transaction("a1", "a2"), "b": transaction("b1", "b2")}, opened=("a", "b")),
    Scenario("open with a torn tail and writer", {"a": opens(looks(1)), "b": opens(commits("b1"))}, files=TORN),
    Scenario("open after a vacuum that died, and writer", {"a": opens(), "b": opens(commits("b1"))}, files=ORPHANED),
    Scenario(
        "a daemon and a writer",
        {"a": _program(becomes_a_daemon(empty, locked=False), commits("a1")), "b": commits("b1")},
        opened=("a", "b"),
        fair=log_is_as_it_was,
    ),
    Scenario(
        "a daemon with a log of the same size, and a vacuum",
        {"a": _program(commits("a1"), becomes_a_daemon(of_the_same_size), time_passes, commits("a2")), "v": vacuums},
        opened=AV,
        fair=log_is_as_it_was,
        kills=0,
        switches=2,
    ),
    Scenario(
        "a daemon that sets, and a reader",
        {"a": _program(becomes_a_daemon(empty, locked=False), begins_the_log), "r": looks(1)},
        opened=AR,
        fair=log_is_as_it_was,
    ),
    Scenario(
        "a daemon before its first commit, with a log of the same size",
        {"a": _program(becomes_a_daemon(of_the_same_size, locked=False), commits("a1")), "r": looks(1)},
        opened=AR,
        fair=log_is_as_it_was,
    ),
    Scenario(
        "a daemon in a transaction, and a writer",
        {"a": _program(becomes_a_daemon_in_a_transaction, commits("a1")), "b": commits("b1")},
        opened=("a", "b"),
        fair=log_is_as_it_was,
    ),
    Scenario("close and open", {"a": closes, "b": opens(looks(1), closes)}, opened=A),
    Scenario(
        "commit, close and open", {"a": _program(commits("a1"), closes), "b": opens(looks(1))}, opened=A, switches=3
    ),
    Scenario("two closes", {"a": _program(commits("a1"), closes), "b": closes}, opened=("a", "b")),
    Scenario("a new file", {"a": opens(commits("a1")), "b": opens()}, **NEW, switches=3),
    both("a1", "b1", name="power: two writers", options=POWER, power=True),
    Scenario("power: writer and vacuum", {"a": commits("a1"), "v": vacuums}, opened=AV, options=POWER, power=True),
    Scenario("power: around a vacuum", {"a": around_a_vacuum}, opened=A, options=POWER, power=True),
    Scenario("around a vacuum", {"a": around_a_vacuum}, opened=A, power=True),
    Scenario(
        "power: a new file",
        {"a": opens(commits("a1"), closes)},
        files={},
        power=True,
        options={**POWER, "defaults": {"log": []}},
    ),
    Scenario("power: writer and reader", {"a": commits("a1"), "r": looks(2)}, opened=AR, options=POWER, power=True),
    Scenario("failing calls: around a vacuum", {"a": around_a_vacuum}, opened=A, failures=2, kills=0),
    both("a1", "b1", name="failing calls: two writers", failures=1),
    both("a1", "b1", name="failing calls, power: two writers", failures=1, kills=0, options=POWER, power=True),
    Scenario("records across sectors", {"a": commits("a1", "a2", "a3")}, FULL_SECTOR, opened=A, kills=0, power=True),
    Scenario("a record of several sectors", {"a": commits("a1", "a2" + 1200 * "x")}, opened=A, kills=0, power=True),
    Scenario("fork in a transaction", {"a": forks}, opened=A),
    Scenario("fork in a transaction, and a writer", {"a": forks, "b": commits("b1")}, opened=("a", "b")),
    Scenario("a transaction that is undone", {"a": undoes, "r": looks(2)}, opened=AR),
    Scenario(
        "two vacuums and a writer",
        {"a": commits("a1"), "v": vacuums, "w": vacuums},
        opened=("a", "v", "w"),
        kills=0,
        switches=2,
    ),
    Scenario(
        "power: a new file of two",
        {"a": _program(opens_without_defaults, closes), "b": opens(commits("b1"))},
        files={},
        power=True,
        options={**POWER, "defaults": {"log": []}},
        switches=3,
    ),
    *(edited(name, save, a=commits("a1")) for name, save in EDITORS.items()),
    *(edited(name, save, v=vacuums_or_not) for name, save in EDITORS.items()),
    *(three(edited(name, save, a=commits("a1"), b=commits("b1"))) for name, save in EDITORS.items()),
    *(three(edited(name, save, a=commits("a1"), v=vacuums_or_not)) for name, save in EDITORS.items()),
    edited("power: saved by rename", saves_by_rename, options=POWER, a=commits("a1")),
    replace(
        edited("saved in place", saves_in_place, a=around_a_vacuum), name="saved in place, around a vacuum", kills=0
    ),
    replace(
        edited("saved with a backup", saves_with_backup, a=_program(time_passes, transaction("a1", "a2"))),
        name="saved with a backup, a transaction",
    ),
    after_a_look("saved by rename", saves_by_rename),
    after_a_look("saved in place", saves_in_place),
    after_a_look("saved as a new document", saves_a_new_document),
    after_a_look("deleted", deletes),
    after_a_look("deleted, another writer", deletes, b=commits("b1")),
    three(edited("saved as a new document", saves_a_new_document, a=commits("a1"), r=looks(2))),
    watched("writer", a=commits("a1", "a2")),
    watched("transaction", a=transaction("a1", "a2"), w=commits("w1")),
    watched("commit and vacuum", a=_program(commits("a1"), vacuums)),
    watched("close and open", a=_program(commits("a1"), closes, opens(commits("a2"))), kills=0),
    watched("commits between vacuums", a=_program(vacuums, commits("a1", "a2"), vacuums), kills=0, switches=4),
    watched(
        "the watching program commits and vacuums",
        a=_program(vacuums, commits("a1")),
        w=_program(vacuums, commits("w1")),
        kills=0,
        switches=3,
    ),
    watched(
        "commits between vacuums of two",
        a=_program(vacuums, commits("a1")),
        v=_program(vacuums, vacuums),
        kills=0,
        switches=2,
    ),
    watched(
        "two watches",
        a=_program(commits("a1"), vacuums, follows),
        w=_program(commits("w1"), vacuums),
        watching=("a", "w"),
        kills=0,
        switches=2,
    ),
    watched(
        "begins while others vacuum",
        a=_program(vacuums, commits("a1"), vacuums),
        w=begins_to_watch,
        watching=(),
        kills=0,
        switches=3,
    ),
    watched("without a trailer", a=_program(vacuums, commits("a1"), vacuums), files=BARE, kills=0),
    watched("power", a=commits("a1", "a2"), options=POWER, power=True),
    watched("read-only, commit and vacuum", a=_program(commits("a1"), vacuums), **STARVED),
    watched("read-only, close and open", a=_program(commits("a1"), closes, opens(commits("a2"))), **STARVED, kills=0),
    watched(
        "read-only, commits between vacuums",
        a=_program(vacuums, commits("a1", "a2"), vacuums),
        **STARVED,
        kills=0,
        switches=4,
    ),
    watched(
        "read-only, without a trailer",
        a=_program(vacuums, commits("a1"), vacuums),
        files=BARE,
        **STARVED,
        kills=0,
    ),
    watched(
        "read-only, after a vacuum that died",
        a=opens(commits("a1"), vacuums),
        files=ORPHANED,
        opened=("w",),
        **STARVED,
        kills=0,
    ),
    watched("slow, commit and vacuum", a=_program(commits("a1"), vacuums), slow=True),
    watched("slow, without a trailer", a=_program(vacuums, commits("a1"), vacuums), files=BARE, slow=True, kills=0),
    watched("slow, no final newline", a=commits("a1", "a2"), files=ENDLESS, slow=True, kills=0),
    watched("read-only, no final newline", a=commits("a1", "a2"), files=ENDLESS, **STARVED, kills=0),
    *(
        watched(name, a=commits("a1"), edited=True, fair=edits_are_there, kills=0, switches=2, **{PERSON: save})
        for name, save in EDITORS.items()
    ),
    Scenario(
        "watch: saved by rename, nobody else",
        {PERSON: saves_by_rename, "w": follows},
        opened=("w",),
        watching=("w",),
        edited=True,
        fair=edits_are_there,
    ),
    Scenario(
        "around a vacuum, with strangers' files beside",
        {"a": around_a_vacuum},
        opened=A,
        strangers={"/.state.yaml.vacuum": stat.S_IFREG | 0o666, "/.state.yaml.swap": stat.S_IFREG | 0o666},
    ),
    Scenario(
        "around a vacuum, with the plain rename",
        {"a": around_a_vacuum},
        opened=A,
        plain=True,
        power=True,
    ),
    Scenario(
        "around a vacuum, with a pipe and a link beside",
        {"a": around_a_vacuum},
        opened=A,
        strangers={"/.state.yaml.vacuum": stat.S_IFLNK | 0o777, "/.state.yaml.swap": stat.S_IFIFO | 0o666},
    ),
    Scenario(
        "two vacuums, with strangers' files beside",
        {"a": _program(commits("a1"), vacuums), "b": _program(vacuums, commits("b1"))},
        strangers={"/.state.yaml.vacuum": stat.S_IFREG | 0o666, "/.state.yaml.swap": stat.S_IFREG | 0o666},
        opened=("a", "b"),
        kills=0,
        switches=2,
    ),
    Scenario("a close and a writer", {"a": closes, "b": commits("b1")}, JOURNALED, opened=("a", "b"), kills=0),
]


def named(name: str) -> Scenario:
    """The scenario of that name, a copy."""
    return replace(next(scenario for scenario in SCENARIOS if scenario.name == name))
