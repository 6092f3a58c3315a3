"""What must hold whenever a run of a scenario ends, and whenever the power goes in it.

All scenarios write into one list, `log`, and most of them only append to it. So the order of the commits is the order
of the list, a commit that was lost is a token that is missing, one that was made twice is a token that occurs twice,
and a view that moved backward is not a beginning of the list.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import yaml

from pstate import ABSENT, PersistedState, PStateError, StateFileError, engines, store
from pstate.testing.disk import SimulatedDisk
from pstate.testing.system import Hook, SimulatedSystem
from pstate.values import same
from stress.check import BrokenPromise
from stress.simulated.world import DAEMON_LOG, PATH, STRANGE, Actor, World

Files = frozenset[tuple[str, bytes]]

#: What a program may leave beside the state, because it keeps something of a person's, or of a power cut's.
KEPT = (".conflict-", ".cut-")


def temporary(names: Any) -> list[str]:
    """Those of *names* that nobody should find after everybody has closed."""
    return [name for name in names if name not in (PATH, DAEMON_LOG) and not any(word in name for word in KEPT)]


def expect(condition: object, message: str) -> None:
    if not condition:
        raise BrokenPromise(message)


def _patience() -> Hook:
    """A hook for a process that has nothing to wait for: it gets to its end, or is broken."""
    calls = 0

    def hook(system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        calls += 1
        if calls > 2_000 and name != "close":
            raise BrokenPromise(f"{system.process} gets nowhere: {name}{arguments}")

    return hook


@lru_cache(maxsize=200_000)
def opened(content: bytes) -> tuple[str, ...]:
    """The log in a file with this content, for a new reader."""
    system = SimulatedSystem(SimulatedDisk({PATH: content}), _patience(), name="reader")
    with PersistedState.open(PATH, fs=system, read_only=True) as state:
        return tuple(state.get("log", ()))


@lru_cache(maxsize=200_000)
def after_boot(files: Files) -> tuple[str, ...] | str | None:
    """The log that the first program after a power cut finds, None without a file, or what is wrong.

    It also goes on: commits, closes, and leaves one plain document and nothing else.
    """
    image = dict(files)
    disk = SimulatedDisk(image, boot="b0070002")
    system = SimulatedSystem(disk, _patience(), name="next")
    try:
        state = PersistedState.open(PATH, fs=system, defaults={"log": []})
        found = tuple(state["log"].copy())
        state.log.append("next")
        state.close()
    except PStateError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        store.abandon(engines.Files(system))
    try:
        document = yaml.safe_load(disk.names[PATH].content)
    except yaml.YAMLError as error:
        return f"not YAML after a close: {error}"
    if document["log"] != [*found, "next"]:
        return f"the closed file says {document['log']}, the state said {found}"
    left = temporary(disk.names)
    if left:
        return f"left behind: {left}"
    return found if PATH in image else None


def forget() -> None:
    """Read again what was read before: the code that reads has changed."""
    opened.cache_clear()
    after_boot.cache_clear()


def after_the_power_went(world: World) -> int:
    """Judge every state that the medium may be in if the power goes now. Returns how many there were."""
    images = {frozenset(image.items()) for image in world.disk.after_power_cut()}
    for image in images:
        judge_image(world, image)
    return len(images)


def judge_image(world: World, image: Files) -> None:
    """Judge what the next boot finds, if the power goes now."""
    found = after_boot(image)
    if isinstance(found, str):
        raise BrokenPromise(f"after a power cut, {found}\nfiles: {dict(image)}")
    due = world.durable() | world.told() if world.scenario.options.get("durability") == "power" else frozenset()
    if found is None:
        # Nobody promises a new file before its first sync.
        expect(PATH not in world.scenario.files, f"the state file is gone after a power cut: {dict(image)}")
        found = ()
    lacking = due - set(found)
    expect(not lacking, f"after a power cut {sorted(lacking)} are gone, which were durable: {dict(image)}")
    if PATH in world.disk.names:
        now = opened(world.disk.names[PATH].content)
        expect(
            found == now[: len(found)],
            f"after a power cut the log is {found}, no beginning of {now}\nfiles: {dict(image)}",
        )
        expect(
            len(found) >= world.floor,
            f"after a power cut the log is {found}, older than the last vacuum\nfiles: {dict(image)}",
        )


def at_the_end(world: World) -> None:
    """Judge a run that has ended: first as it is, then after everybody who lives has gone on."""
    scenario = world.scenario
    if PATH not in world.disk.names:
        expect(not scenario.files and not world.acknowledged(), "the state file is gone")
        world.actors["first"] = world.actor("first")
        world.actors["first"].open()
    living = [actor for actor in world.actors.values() if actor.state is not None and not actor.system.dead]
    if scenario.edited:
        for _ in range(8):  # an edit is noticed by the next look, and what each alone knows comes back with its own
            for actor in living:
                actor.pause(1.0)
                actor.look_again()
    try:
        says = opened(world.disk.names[PATH].content)
    except StateFileError:
        # An edit above the journal of programs that are dead, or in the very moment of a commit: an error that names
        # both sides is what is promised.
        if not scenario.edited:
            raise
        _judge_a_mixture(world, living)
        return
    if not scenario.edited:
        _judge_log(world, says)
    for actor in living:
        assert actor.state is not None
        view = tuple(actor.state.get("log", ()))
        expect(view == says, f"memory of {actor.name} says {view}, the file {says}")
    # Everybody can go on.
    if not any(actor.may_write for actor in living):
        world.actors["last"] = world.actor("last")
        living.append(world.actors["last"])
        living[-1].open()
    for actor in living:
        if not actor.may_write:
            continue
        try:
            actor.commit(f"{actor.name} at the end")
        except PStateError as error:
            raise BrokenPromise(f"{actor.name} cannot go on: {error}") from error
    for actor in living:
        seen = actor.look()
        says = opened(world.disk.names[PATH].content)
        expect(seen == says, f"memory of {actor.name} says {seen}, the file {says}")
    for actor in living:
        if actor.watch is not None:
            assert actor.state is not None
            actor.hear()
            _judge_watch(actor, says, actor.state.snapshot())
    for actor in living:
        actor.close()
    if scenario.failures:
        # A failed sync leaves a journal; it does not concern the program that opens the file next.
        world.actors["after"] = world.actor("after")
        world.actors["after"].open()
        world.actors["after"].close()
    content = world.disk.names[PATH].content
    documents = list(yaml.safe_load_all(content))
    expect(len(documents) == 1, f"after the last close there are {len(documents)} documents: {content!r}")
    expect(tuple(documents[0]["log"]) == says, f"the closed file says {documents[0]['log']}, memory said {says}")
    left = temporary(world.disk.names.keys() - world.strangers)
    expect(not left, f"left behind: {left}")
    for path, inode in world.strangers.items():
        is_alone = world.disk.names.get(path) is inode and inode.content == STRANGE
        expect(is_alone, f"{path} is not what a stranger had put there: {world.disk.files()}")
    kept = [path for path, content in world.disk.files().items() if path not in world.strangers and STRANGE in content]
    expect(not kept, f"{kept} has what is a stranger's")
    _judge_log(world, says)
    for actor in world.actors.values():
        if actor.watch is not None:
            _judge_watch(actor, says, None)
    scenario.fair(world)


def _judge_watch(actor: Actor, log: tuple[str, ...], now: dict[Any, Any] | None) -> None:
    """What the watch of *actor* has told leads from the state when it began to *now*; None: to any later one."""
    told = [change for together in actor.told for change in together]
    state = actor.watched_from.copy()
    state["log"] = list(state.get("log", ()))
    for change in told:
        place = f"{actor.name} was told {change}, where there is {state}"
        if len(change.path) == 1:
            expect(same(state.get(change.path[0], ABSENT), change.old), place)
            state[change.path[0]] = change.new
            if change.new is ABSENT:
                del state[change.path[0]]
            elif isinstance(change.new, list):
                state[change.path[0]] = change.new.copy()
            continue
        key, index = change.path
        values = state[key]
        if change.old is not ABSENT:
            expect(change.old in values, place)
            values.remove(change.old)  # each has the index that it had, when several go
        if change.new is not ABSENT:
            values.insert(index, change.new)
            expect(values[index : index + 1] == [change.new], place)
    if now is not None:
        expect(state == now, f"{actor.name} was told of {state}, the state is {now}: {told}")
    elif not actor.world.scenario.edited:
        expect(tuple(state["log"]) == log[: len(state["log"])], f"{actor.name} was told of {state}, not of {log}")
    tokens = [change.new for change in told if change.path[0] == "log" and isinstance(change.new, str)]
    if not actor.world.scenario.edited:
        expect(all(change.commit for change in told), f"{actor.name} was told of several commits as one: {told}")
        expect(len(set(tokens)) == len(tokens), f"{actor.name} was told twice: {told}")
    for change in told:
        whose = None if change.commit is None else "here" if str(change.new).startswith(actor.name) else "other"
        if change.new is not ABSENT and change.path[0] == "log" and not actor.world.scenario.edited:
            expect(change.origin == whose, f"{actor.name} was told of {change}, which is {whose}'s")
        expect(change.commit or not actor.world.scenario.edited or change.origin == "edit", f"{change} is not an edit")
    for group in (group for other in actor.world.actors.values() for group in other.groups):
        for together in actor.told if not actor.world.scenario.edited else ():
            there = group & {change.new for change in together if isinstance(change.new, str)}
            expect(there in (set(), group), f"{actor.name} was told half of {sorted(group)}: {together}")


def _judge_a_mixture(world: World, living: list[Actor]) -> None:
    """The file has something of an edit and something of commits, and cannot be read.

    Those who know commits read on, do not touch it, and leave what they know beside it.
    """
    for actor in living:
        assert actor.state is not None
        lacking = set(actor.acknowledged) - set(actor.state.get("log", ()))
        expect(not lacking, f"{actor.name} does not know its own {sorted(lacking)} any more")
    mixture = world.disk.names[PATH].content
    for actor in living:
        actor.close()
    expect(world.disk.names[PATH].content == mixture, "a file that does not parse was touched")
    lacking = {token for actor in living for token in actor.acknowledged}
    lacking -= world.kept_beside(lacking)
    expect(not lacking, f"{sorted(lacking)} are nowhere any more")


def _judge_log(world: World, log: tuple[str, ...]) -> None:
    expect(len(set(log)) == len(log), f"something was committed twice: {log}")
    lacking = world.due() - set(log)
    if world.scenario.edited:
        lacking -= world.kept_beside(lacking)
    expect(not lacking, f"{sorted(lacking)} were acknowledged and are lost: {log}, files: {world.disk.files()}")
    foreign = set(log) - world.attempted() - {"before"}
    expect(not foreign, f"{sorted(foreign)} were never committed: {log}")
    refused = set(log) & world.refused()
    expect(not refused, f"{sorted(refused)} were refused and are visible: {log}")
    for actor in world.actors.values():
        views = [view for view in actor.views if not world.scenario.edited]
        for view in views:
            expect(view == log[: len(view)], f"{actor.name} saw {view}, which is not a beginning of {log}")
        for before, after in pairwise(views):
            expect(len(before) <= len(after), f"a view of {actor.name} moved backward: {before}, then {after}")
        for group in actor.groups:
            for seen in (log, *actor.views, *(view for other in world.actors.values() for view in other.views)):
                there = group & set(seen)
                expect(there in (set(), group), f"half of {sorted(group)} is in {seen}")
