"""The measurements run, say what they mean, and judge promises; how fast it is does not concern the tests."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import perftest
from perf import flavours, floor, sharing, works
from perf.peers import Append, Peer, Result
from perf.works import Contestant, Work, is_reached, looped, measured


class Missing(Peer):
    """A peer that is installed nowhere."""

    label = "gone"
    needs = "no_such_module_anywhere"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(works, "SECONDS", 0.002)
    monkeypatch.setattr(works, "TIMES", 50)
    monkeypatch.setattr(works, "ROWS", 20)
    monkeypatch.setattr(works, "COMMITS", 50)
    monkeypatch.setattr(works, "OPENINGS", 2)
    monkeypatch.setattr(sharing, "SHARED_SECONDS", 0.05)


def work(bar: float = 2) -> Work:
    times = iter(range(1, 100))
    return Work(
        "waiting",
        [
            Contestant("pstate", "kill", lambda folder: 1e-6 * next(times)),
            Contestant("slow", "kill", lambda folder: 3e-3),
            Contestant("gone", "power", lambda folder: 1.0, "no_such_module"),
        ],
        {"slow": bar},
    )


@pytest.fixture(autouse=True, scope="module")
def _pure_process() -> Iterator[None]:
    """Other tests count the processes and threads of this one."""
    yield
    flavours.close()
    assert [] == multiprocessing.active_children()


def test_the_ratio_is_the_median_of_the_rounds_and_the_first_one_warms_up(tmp_path: Path) -> None:
    told: list[str] = []
    ours, slow, gone = measured(work(), 3, tmp_path, told.append)

    assert (3e-6, 1.0) == (ours.seconds, ours.ratio)  # of 2, 3 and 4
    assert 3e-3 / 3e-6 == pytest.approx(slow.ratio)
    assert "no_such_module is missing" == gone.note
    assert math.isnan(gone.seconds)
    assert "waiting: slow, round 3 of 3" == told[-1]


def test_where_the_worst_round_counts_it_is_the_longest_time_and_the_lowest_ratio(tmp_path: Path) -> None:
    ours, slow, _ = measured(dataclasses.replace(work(), worst=True), 3, tmp_path, lambda text: None)

    assert 4e-6 == ours.seconds
    assert 3e-3 / 4e-6 == pytest.approx(slow.ratio)


def test_a_promise_is_kept_broken_or_not_given() -> None:
    slow = Result("slow", "kill", 1.0, 2.0)

    assert is_reached(work(2), slow) is True
    assert is_reached(work(2.1), slow) is False
    assert is_reached(work(), Result("pstate", "kill", 1.0, 1.0)) is None
    assert is_reached(work(), Result("slow", "kill", math.nan, math.nan, "slow is missing")) is None


def test_what_is_not_installed_has_a_row_that_says_so() -> None:
    (contestant,) = looped([Missing], "count")

    assert "no_such_module_anywhere" == contestant.missing


def test_the_pure_pstate_is_measured_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PSTATE_PURE", raising=False)

    assert flavours.measure_pure("read the counter", "pstate", tmp_path) > 0
    assert "1" == flavours._pure().submit(os.getenv, "PSTATE_PURE").result()
    assert os.getpid() != flavours._pure().submit(os.getpid).result()
    assert "PSTATE_PURE" not in os.environ


def test_the_pure_pstate_stands_beside_each_compiled_one() -> None:
    both = flavours.beside_pure(
        Work("w", [Contestant("pstate, 2", "kill", lambda folder: 1.0), Contestant("slow", "", lambda folder: 1.0)], {})
    )

    assert ["pstate, 2", "pstate (pure Python), 2", "slow"] == [one.label for one in both.contestants]


@pytest.mark.parametrize("is_compiled", [True, False])
def test_the_flavour_decides_who_takes_part_and_what_the_head_says(
    is_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flavours.speed, "compiled", is_compiled)
    labels = [one.label for work in flavours.chosen() for one in work.contestants]

    assert is_compiled is (flavours.PURE in labels)
    assert ("compiled" if is_compiled else "pure Python") == flavours.flavour().partition(";")[0].partition(",")[0]


def test_each_bar_is_about_a_contestant() -> None:
    for work in map(flavours.beside_pure, works.works()):
        for bar in work.bars:
            assert [one for one in work.contestants if one.label.startswith(bar)], (work.name, bar)


def test_the_floor_from_c_makes_the_calls(tmp_path: Path) -> None:
    if floor.library() is None:
        pytest.skip("no C compiler")
    peer = floor.AppendFromC(tmp_path)
    peer.count(7)
    peer.read(7)

    assert 7 * peer.record == (tmp_path / "log").read_bytes()
    peer.close()
    with pytest.raises(OSError, match="only 0 of 2"):
        peer.count(2)


def test_where_there_is_no_c_compiler_the_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    monkeypatch.setattr(floor, "library", floor.library.__wrapped__)
    result = measured(
        Work("w", [Contestant("pstate", "", lambda folder: 1.0), *looped([floor.AppendFromC], "count")], {}),
        1,
        tmp_path,
        lambda text: None,
    )[1]

    assert "a C compiler is missing" == result.note


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kind", ["pstate", "bare"])
def test_several_processes_do_what_they_count(kind: str, tmp_path: Path) -> None:
    turns = sharing.shared(kind, 2, tmp_path, 0.05)

    assert 2 == len(turns)
    done = sum([one.done for one in turns])
    assert 0 < min(one.longest_wait for one in turns)
    if kind == "pstate":
        assert {"n": done} == yaml.safe_load((tmp_path / "state.yaml").read_text())
    else:
        assert done * Append.record == (tmp_path / "log").read_bytes()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", [work.name for work in works.works() if "processes" not in work.name])
def test_every_work_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, and the floors: a peer is measured where it is installed."""
    (chosen,) = [work for work in works.works() if work.name == name]
    here = ("pstate", "bare", "the same steps", "a dict", "checksum")
    ours = [contestant for contestant in chosen.contestants if contestant.label.startswith(here)]
    if "recover" in name:
        ours = ours[:1]
    if "beside" in name:
        ours = ours[1:]  # 1 KB, not 10 MB: the same function
        assert ours

    for result in measured(Work(name, ours, {}), 1, tmp_path, lambda text: None):
        assert result.seconds > 0


def test_the_bytes_of_vacuums_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(works, "COMMITS", 3_000)
    monkeypatch.setattr(works.limits, "JOURNAL_MINIMUM", 1 << 10)
    monkeypatch.setattr(works.limits, "JOURNAL_FACTOR", 0.2)
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()

    assert works.bytes_written(True, tmp_path / "with") > 2 * works.bytes_written(False, tmp_path / "without") > 80


def test_the_plot_shows_each_store_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(perftest, "chosen", lambda: [work()])

    assert 0 == perftest.main(["--quick", "--plot", str(tmp_path / "plot.svg")])
    drawn = (tmp_path / "plot.svg").read_text()
    assert drawn.startswith("<?xml")
    for text in ("waiting", "pstate", "slow", "3 ms"):
        assert text in drawn, text
    assert "gone" not in drawn


PAGE = f"""before
{perftest.WON_BEGIN}
old
{perftest.WON_END}
{perftest.SUMMARY_BEGIN}
old
{perftest.SUMMARY_END}
between
{perftest.BEGIN}

## CPython 3.10

ten

## CPython 3.99

old
{perftest.END}
after it
"""


def test_the_tables_go_between_the_marks_of_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "page.md"
    document.write_text(PAGE)
    monkeypatch.setattr(perftest, "chosen", lambda: [dataclasses.replace(work(1e9), short="wait")])
    monkeypatch.setattr(perftest, "version", lambda: "3.99")

    assert 1 == perftest.main(["--quick", "--check", "--markdown", str(document), "--summary"])
    assert 0 == perftest.main(["--quick"])
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after it\n")
    assert "old" not in text
    assert "## CPython 3.10\n\nten\n\n## CPython 3.99\n\n`python perftest.py" in text
    assert "| slow | kill | 3 ms |" in text
    assert "NO, 1e+09×" in text
    assert "| wait | **2 µs** |  |" in text
    assert "not reached" in capsys.readouterr().out


def test_a_new_version_gets_a_section_in_the_order_of_versions() -> None:
    text = perftest.put_section(PAGE, "3.11", "eleven")

    assert "ten\n\n## CPython 3.11\n\neleven\n\n## CPython 3.99\n\nold\n\n" in text
    assert text == perftest.put_section(text, "3.11", "eleven")


def test_the_short_table_is_left_alone_without_being_asked_for(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(PAGE)

    assert perftest.SUMMARY_BEGIN + "\nold\n" in perftest.with_results(document, [], 1, short=False)


def test_a_document_without_marks_and_a_name_that_no_work_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perftest, "chosen", lambda: [work()])
    document = tmp_path / "page.md"
    document.write_text("nothing")

    monkeypatch.setattr(perftest, "measured", None)  # refused before anything is measured
    with pytest.raises(SystemExit, match="marks"):
        perftest.main(["--quick", "--markdown", str(document)])
    assert "nothing" == document.read_text()
    with pytest.raises(SystemExit) as caught:
        perftest.main(["--only", "no such work"])
    assert 2 == caught.value.code


# ------------------------------------------------------------------ the document of this repository

DOCUMENT = (Path(__file__).parent.parent / "docs" / "performance.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([^|]+) \| (\w*) \| ([\d.]+) (s|ms|µs|MB|B) \| ([\d.]+)× \| ([^|]*) \|$", re.M)
FACTORS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "MB": 1e6, "B": 1.0}


def sections() -> dict[str, str]:
    """The tables of each version of CPython."""
    between = perftest.parted(DOCUMENT, perftest.BEGIN, perftest.END)[1]
    return dict(re.findall(r"(?ms)^## CPython ([\d.]+)\n(.*?)(?=^## |\Z)", between))


def written(section: str) -> perftest.Found:
    """What was measured, as far as the tables of *section* have it."""
    known = {work.name: work for work in works.works()}
    tables = dict(re.findall(r"(?ms)^### ([^\n]*)\n(.*?)(?=^### |\Z)", section))
    return [
        (
            known[name],
            [
                Result(label, durability, float(number) * FACTORS[unit], float(ratio))
                for label, durability, number, unit, ratio, _ in ROW.findall(table)
            ],
        )
        for name, table in tables.items()
    ]


def test_the_document_has_each_work_by_its_name() -> None:
    """A new name is written there by hand: nothing is measured again for a word."""
    for section in sections().values():
        assert [work.name for work in works.works()] == [work.name for work, _ in written(section)]
        for work, results in written(section):
            labels = {result.label for result in results}
            assert {one.label for one in work.contestants} == {label for label in labels if flavours.PURE not in label}


def test_the_document_begins_with_what_its_tables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perftest, "version", lambda: "3.11")
    found = written(sections()["3.11"])

    assert DOCUMENT == perftest.put_summary(DOCUMENT, perftest.summary(found), perftest.won(found))
    assert DOCUMENT.index(perftest.WON_BEGIN) < DOCUMENT.index("## What is out of reach") < DOCUMENT.index("| NO")


def test_each_promise_that_is_not_reached_has_its_reason() -> None:
    """The rows of the tables with a NO, by the store that pstate is compared with."""
    reasons = DOCUMENT.partition("## What is out of reach")[2].partition("\n## ")[0]
    missed = {
        label for section in sections().values() for label, *_, promise in ROW.findall(section) if "NO" in promise
    }
    named = {"lmdb, sync=False": "LMDB", "sqlite3 BEGIN IMMEDIATE": "SQLite", "pstate, 1 thread": "1 thread"}

    assert missed
    assert [] == [label for label in missed if named.get(label, label) not in reasons]


def test_what_is_won_names_only_what_is_clearly_faster() -> None:
    won = perftest.won(
        [
            (
                dataclasses.replace(work(), short="wait"),
                [
                    Result("pstate", "kill", 2e-6, 1.0),
                    Result("pstate (pure Python)", "kill", 8e-6, 4.0),
                    Result("sqlite3 WAL, NORMAL", "kill", 4e-6, 2.04),
                    Result("lmdb, sync=False", "kill", 2.2e-6, 1.1),
                    Result("diskcache", "kill", 4e-5, 20.4),
                ],
            )
        ]
    )

    assert won == "- **wait:** 2 µs, 2.0 times as fast as SQLite, 20 times as fast as diskcache."
