"""The measurements run, say what they mean, and judge promises; how fast it is is no business of the tests."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import perftest
from perf import works
from perf.peers import Peer, Result
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
    monkeypatch.setattr(works, "SHARED_SECONDS", 0.05)


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


def test_the_ratio_is_the_median_of_the_rounds_and_the_first_one_warms_up(tmp_path: Path) -> None:
    told: list[str] = []
    ours, slow, gone = measured(work(), 3, tmp_path, told.append)

    assert (3e-6, 1.0) == (ours.seconds, ours.ratio)  # of 2, 3 and 4
    assert 3e-3 / 3e-6 == pytest.approx(slow.ratio)
    assert "no_such_module is missing" == gone.note
    assert math.isnan(gone.seconds)
    assert "waiting: slow, round 3 of 3" == told[-1]


def test_a_promise_is_kept_broken_or_not_given() -> None:
    slow = Result("slow", "kill", 1.0, 2.0)

    assert is_reached(work(2), slow) is True
    assert is_reached(work(2.1), slow) is False
    assert is_reached(work(), Result("pstate", "kill", 1.0, 1.0)) is None
    assert is_reached(work(), Result("slow", "kill", math.nan, math.nan, "slow is missing")) is None


def test_what_is_not_installed_has_a_row_that_says_so() -> None:
    (contestant,) = looped([Missing], "count")

    assert "no_such_module_anywhere" == contestant.missing


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", [work.name for work in works.works() if "processes" not in work.name])
def test_every_work_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, and the floors: what a peer does is measured by who has it."""
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
    monkeypatch.setattr(perftest, "works", lambda: [work()])

    assert 0 == perftest.main(["--quick", "--plot", str(tmp_path / "plot.svg")])
    drawn = (tmp_path / "plot.svg").read_text()
    assert drawn.startswith("<?xml")
    for text in ("waiting", "pstate", "slow", "3 ms"):
        assert text in drawn, text
    assert "gone" not in drawn


def test_the_tables_go_between_the_marks_of_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"before\n{perftest.BEGIN}\nold\n{perftest.END}\nbehind\n")
    monkeypatch.setattr(perftest, "works", lambda: [work(1e9)])

    assert 1 == perftest.main(["--quick", "--check", "--markdown", str(document)])
    assert 0 == perftest.main(["--quick"])
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("behind\n")
    assert "old" not in text
    assert "| slow | kill | 3 ms |" in text
    assert "NO, 1e+09×" in text
    assert "not reached" in capsys.readouterr().out


def test_a_document_without_marks_and_a_name_that_no_work_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perftest, "works", lambda: [work()])
    document = tmp_path / "page.md"
    document.write_text("nothing")

    with pytest.raises(SystemExit, match="marks"):
        perftest.main(["--quick", "--markdown", str(document)])
    assert "nothing" == document.read_text()
    with pytest.raises(SystemExit) as caught:
        perftest.main(["--only", "no such work"])
    assert 2 == caught.value.code
