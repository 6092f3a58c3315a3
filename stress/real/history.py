"""What transactions have read and appended, and whether they could have done so one after the other.

Pure: no file, no process. The method is that of Elle: all that transactions do is to read lists and to append values to
them that nobody else appends. Then the list at the end tells the order of the appends of a key, and each
read, which must be a beginning of that list, tells between which two it belongs. So the history explains itself,
where a history of plain sets would leave us to guess orders, a search that explodes.

From these orders follows who came before whom:

- ww: the append of one is the next after the append of the other, in one list;
- wr: one has read what the other appended;
- rw: one has not yet seen what the other appended next;
- time: one ended before the other began.

If following these arrows leads from a transaction to itself, no order exists, and the circle is the proof.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from stress.check import BrokenPromise

COMMITTED, ABORTED, UNKNOWN = "committed", "aborted", "unknown"

#: From how many nodes of a tangle a shortest circle is searched.
MOST_STARTS = 200


@dataclass(slots=True)
class Read:
    """A list as it was seen; the last ones of its values may be the reader's own, which are not committed yet.

    A read of only its length, or its last value, has seen the list that had it: `judge` fills in the values.
    """

    key: str
    values: list[int] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    length: int | None = None
    last: int | None = None


@dataclass(slots=True)
class Transaction:
    """One transaction, or one read outside any. Times are in ns, of one clock for all processes."""

    name: str
    began: int
    ended: int | None = None  #: None: it was killed, or had not ended when the history did
    reads: list[Read] = field(default_factory=list)
    appends: list[tuple[str, int]] = field(default_factory=list)
    undone: list[tuple[str, int]] = field(default_factory=list)  #: appends that were rolled back
    status: str = COMMITTED

    def __str__(self) -> str:
        did = [f"reads {read.key} {shown(read.values)}" for read in self.reads]
        did += [f"appends {value} to {key}" for key, value in self.appends]
        return f"{self.name} ({self.status}): {', '.join(did) or 'nothing'}"


def shown(values: list[int]) -> str:
    return str(values) if len(values) < 4 else f"[… {', '.join(map(str, values[-3:]))}] ({len(values)} values)"


#: Why one transaction comes before another: a node is the index of a transaction, or after those a moment in time.
Graph = list[dict[int, str]]


def judge(history: list[Transaction], final: dict[str, list[int]]) -> int:
    """Raise BrokenPromise if *history*, which has led to *final*, has no order; returns the number of dependencies."""
    writers = _writers(history)
    _judge_final(writers, final)
    there = {key: set(values) for key, values in final.items()}
    known: list[Transaction] = []
    for transaction in history:
        found = [value in there[key] for key, value in transaction.appends]
        if transaction.status == COMMITTED and not all(found):
            lost = [
                f"{value} of {key}"
                for (key, value), is_there in zip(transaction.appends, found, strict=True)
                if not is_there
            ]
            raise BrokenPromise(f"P5, lost update: {', '.join(lost)} is missing in the end; {transaction}")
        if transaction.status == UNKNOWN:
            if any(found) and not all(found):
                raise BrokenPromise(f"P4, half of a transaction is left in the end: {transaction}")
            if not any(found):
                continue
        transaction.reads = [read for read in transaction.reads if _fill_in(transaction, read, final[read.key])]
        for read in transaction.reads:
            _judge_read(transaction, read, writers, final[read.key])
        known.append(transaction)
    graph = _dependencies(known, final)
    number = sum(map(len, graph))
    _add_times(known, graph)
    circle = find_circle(graph, len(known))
    if circle is not None:
        raise BrokenPromise(f"P7: these transactions have no order:\n{_told(circle, graph, known)}")
    return number


def _writers(history: list[Transaction]) -> dict[tuple[str, int], tuple[Transaction, bool]]:
    """Which transaction appended what, and whether that was rolled back."""
    writers: dict[tuple[str, int], tuple[Transaction, bool]] = {}
    for transaction in history:
        for each in transaction.appends:
            writers[each] = transaction, transaction.status == ABORTED
        for each in transaction.undone:
            writers[each] = transaction, True
    return writers


def _judge_final(writers: dict[tuple[str, int], tuple[Transaction, bool]], final: dict[str, list[int]]) -> None:
    for key, values in final.items():
        if len(set(values)) != len(values):
            twice = [value for value in values if values.count(value) > 1]
            raise BrokenPromise(f"P4: in {key}, {twice[0]} occurs {values.count(twice[0])} times in the end")
        for value in values:
            if (key, value) not in writers:
                raise BrokenPromise(f"P6: in {key}, {value} is in the end result, and nobody has appended it")
            writer, undone = writers[key, value]
            if undone:
                raise BrokenPromise(f"P6: in {key}, {value} is in the end result, and was rolled back: {writer}")


def _fill_in(reader: Transaction, read: Read, final: list[int]) -> bool:
    """Make values of a length or a last value; False where they tell nothing."""
    if read.length is not None:
        read.values = final[: max(0, read.length - len(read.own))] + read.own
        if len(read.values) != read.length:
            raise BrokenPromise(f"P6: {read.key} had {read.length} values, in the end it has {len(final)}: {reader}")
    elif read.last is not None:
        if read.own:
            if read.own[-1] != read.last:
                raise BrokenPromise(f"P7: the last of {read.key} is {read.last}, its own are {read.own}: {reader}")
            return False  # what came before its own is not known
        read.values = final[: final.index(read.last) + 1] if read.last in final else [read.last]
    return True


def _judge_read(
    reader: Transaction,
    read: Read,
    writers: dict[tuple[str, int], tuple[Transaction, bool]],
    final: list[int],
) -> None:
    count = len(read.values) - len(read.own)
    seen, own = read.values[:count], read.values[max(0, count) :]
    if own != read.own:
        raise BrokenPromise(f"P7: a transaction does not see its own appends to {read.key}, {read.own}: {reader}")
    if seen == final[:count]:
        return
    for value in seen:
        writer, undone = writers.get((read.key, value), (None, False))
        if writer is None:
            raise BrokenPromise(f"P6: {value} in {read.key} is read, and nobody has appended it: {reader}")
        if undone:
            raise BrokenPromise(
                f"P6, aborted read: {value} in {read.key} was rolled back by {writer}; read by {reader}"
            )
        if value not in final:
            raise BrokenPromise(f"P6, dirty read: {value} in {read.key} is missing in the end; read by {reader}")
    raise BrokenPromise(
        f"P7: a read is not a beginning of what {read.key} is in the end, {shown(final[:count])}: {reader}"
    )


def _dependencies(history: list[Transaction], final: dict[str, list[int]]) -> Graph:
    graph: Graph = [{} for _ in history]
    author = {
        each: n
        for n, transaction in enumerate(history)
        if transaction.status != ABORTED
        for each in transaction.appends
    }

    def add(before: int, after: int, why: str) -> None:
        if before != after:
            graph[before].setdefault(after, why)

    for key, values in final.items():
        for first, second in pairwise(values):
            add(author[key, first], author[key, second], f"ww: in {key}, {second} comes after {first}")
    for n, transaction in enumerate(history):
        for read in transaction.reads:
            values = final[read.key]
            count = len(read.values) - len(read.own)
            if count:
                last = values[count - 1]
                add(author[read.key, last], n, f"wr: {last} in {read.key} is read")
            if count < len(values):
                following = values[count]
                add(n, author[read.key, following], f"rw: {following} in {read.key} is not seen yet")
    return graph


def _add_times(history: list[Transaction], graph: Graph) -> None:
    """Add arrows from each transaction to all that began after its end.

    They would be too many. So each end is a node of its own, which the next end follows, and every transaction
    follows the last end before its beginning.
    """
    ends = sorted((transaction.ended, n) for n, transaction in enumerate(history) if transaction.ended is not None)
    first = len(history)
    graph.extend({} for _ in ends)
    for moment, (_, n) in enumerate(ends):
        graph[n].setdefault(first + moment, "time")
        if moment:
            graph[first + moment - 1][first + moment] = "time"
    begins = sorted((transaction.began, n) for n, transaction in enumerate(history))
    moment = 0
    for began, n in begins:
        while moment < len(ends) and ends[moment][0] < began:
            moment += 1
        if moment:
            graph[first + moment - 1].setdefault(n, "time")


def find_circle(graph: Graph, people: int) -> list[int] | None:
    """A shortest circle, or nearly so, as its nodes in order; None where there is none.

    Nodes from *people* on are moments, which cost nothing.
    """
    best: list[int] | None = None
    cost = 0
    for tangle in _tangles(graph):
        inside = set(tangle)
        starts = [node for node in tangle if node < people][:MOST_STARTS]
        for start in starts:
            circle = _way_back(graph, start, inside, people)
            steps = sum(node < people for node in circle)
            if best is None or steps < cost:
                best, cost = circle, steps
        break  # one is enough
    return best


def _way_back(graph: Graph, start: int, inside: set[int], people: int) -> list[int]:
    """The shortest way from *start* to itself; *inside* is a tangle, so that there is one."""
    came: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for following in graph[node]:
            if following not in inside or following in came:
                continue
            came[following] = node
            if following == start:
                way = [node]
                while way[-1] != start:
                    way.append(came[way[-1]])
                return way[::-1]
            if following < people:
                queue.append(following)
            else:
                queue.appendleft(following)
    raise AssertionError("a tangle has a way back from every node")


def _tangles(graph: Graph) -> Iterator[list[int]]:
    """The sets of more than one node that can all be reached from each other (Tarjan, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    stacked: set[int] = set()
    for root in range(len(graph)):
        if root in index:
            continue
        work = [(root, iter(graph[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        stacked.add(root)
        while work:
            node, following = work[-1]
            for other in following:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    stacked.add(other)
                    work.append((other, iter(graph[other])))
                    break
                if other in stacked:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    tangle: list[int] = []
                    while not tangle or tangle[-1] != node:
                        tangle.append(stack.pop())
                        stacked.discard(tangle[-1])
                    if len(tangle) > 1:
                        yield tangle


def _told(circle: list[int], graph: Graph, history: list[Transaction]) -> str:
    """The circle as a list of transactions, each with the reason why it must come before the next one."""
    people = [position for position, node in enumerate(circle) if node < len(history)]
    lines = []
    for number, position in enumerate(people, 1):
        node = circle[position]
        after = circle[people[number % len(people)]]
        following = circle[(position + 1) % len(circle)]
        if following < len(history):
            why = graph[node][following]
        else:
            pause = history[after].began - (history[node].ended or 0)
            why = f"time: it ended {pause / 1000:.1f} µs before the next one began"
        lines.append(f"T{number} {history[node]}")
        lines.append(f"    comes before T{number % len(people) + 1}, {why}")
    return "\n".join(lines)
