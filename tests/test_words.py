"""The idioms that the house style replaces: each is found where it is prose, and what only looks like one is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools import words

PLANTED = {
    "is no NOUN": ["This is no mapping.", "They are no `str`.", "It has been no error.", "It is no matter of locks."],
    "stands": ["The value stands in quotes.", "It must stand below.", "A record stood there.", "one standing open"],
    "whoever": ["Whoever reads it waits.", "It tells whoever asks.", "by whomsoever"],
    "headless who": ["Who vacuums waits for the lock.", "It is locked. Who wants it waits."],
    "of who": ["It is asked by who changes it.", "a mark for who reads"],
    "a text": ["A text is printed as it is.", "each text is quoted", "no texts"],
    "behind, in front of": ["the comment behind the value", "in front of the record", "Behind it is a marker."],
    "go round": ["C code can go round it.", "That goes round the lock."],
    "is there": ["The key is there already.", "what was there before", "It is not there.", "It is there."],
    "has no end": ["The quote has no end.", "They have no end."],
    "without a word": ["It dies without a word.", "what JSON has no word for"],
    "of which": ["a signal, of which a program dies", "a record of which nobody has heard"],
    "One writes": ["One writes it so.", "It is long. One can wait."],
    "inside of": ["inside of a transaction", "outside of it"],
    "becomes of": ["what becomes of it", "what has become of them"],
    "nobody knows": ["a record nobody knows", "that nobody else knew"],
    "as many … as": ["as many as there are", "as much of the marker as fits", "in as many cases as time allows"],
    "anew": ["The file is written anew."],
    "belongs into": ["It belongs into a database."],
}

LEGITIMATE = {
    "is no NOUN": [
        "It is no longer open.",
        "There is no lock, and there are no readers.",
        "There may be no end.",
        "It is no more than 3.",
        "It is not a mapping.",
        "`x` is no",
        "There's no need.",
    ],
    "stands": ["PK stands for key.", "They understand it.", "a stand-in", "`standing` is a name", "It stands out."],
    "whoever": ["who, and ever"],
    "headless who": ["Who has it open?", "A program who waits", "WHO is an organisation."],
    "of who": ["say who waits", "for whom"],
    "a text": ["a text file", "the text of a record", "a context"],
    "behind, in front of": [
        "It leaves nothing behind.",
        "It falls behind.",
        "a server that lagged behind",
        "behind a pooler",
        "the front of the file",
    ],
    "go round": ["It goes on.", "a round number"],
    "is there": ["Is there a lock?", "There is one.", "Are there any?"],
    "has no end": ["It has no ending.", "There is no end."],
    "without a word": ["in other words"],
    "of which": ["two files, one of which is open", "pieces, the first of which parses"],
    "One writes": ["One of them waits.", "The second one can wait."],
    "inside of": ["inside the block", "inside out"],
    "becomes of": ["It becomes one of them."],
    "nobody knows": ["Nobody has it open."],
    "as many … as": ["as long as it takes", "twice as many commits as before", "many tests, as here"],
    "anew": ["a new file"],
    "belongs into": ["It belongs in a database."],
}

BY_NAME = {rule.name: rule for rule in words.idioms()}


def found(tmp_path: Path, name: str, text: str) -> list[tuple[int, str]]:
    """Line and name of each idiom in a file *name* with *text*."""
    path = tmp_path / name
    path.write_text(text)
    return [(each.line, each.idiom.name) for each in words.search(path, name, words.idioms())]


def test_each_idiom_has_examples_here() -> None:
    assert list(BY_NAME) == list(PLANTED) == list(LEGITIMATE)


@pytest.mark.parametrize(("name", "sentence"), [(name, each) for name, those in PLANTED.items() for each in those])
def test_a_planted_idiom_is_found(name: str, sentence: str, tmp_path: Path) -> None:
    for file, text in (
        ("a.md", f"{sentence}\n"),
        ("a.py", f"x = 1  # {sentence}\n"),
        ("b.py", f'def f():\n    """{sentence}"""\n'),
        ("a.c", f"/* {sentence} */\n"),
    ):
        assert (2 if file == "b.py" else 1, name) in found(tmp_path, file, text), (file, sentence)


@pytest.mark.parametrize(("name", "sentence"), [(name, each) for name, those in LEGITIMATE.items() for each in those])
def test_what_only_looks_like_an_idiom_is_not_found(name: str, sentence: str, tmp_path: Path) -> None:
    for file, text in (("a.md", f"{sentence}\n"), ("a.py", f"# {sentence}\n"), ("a.c", f"// {sentence}\n")):
        assert name not in {each for _line, each in found(tmp_path, file, text)}, (file, sentence)


def test_code_is_not_read_as_prose(tmp_path: Path) -> None:
    code = (
        'stands = whoever\nlog.standing = behind(stands, "stands", "pstate.file.standing")\nx = f"{stands} {behind}"\n'
    )

    assert found(tmp_path, "a.py", code) == []
    assert found(tmp_path, "a.c", 'int stands = behind; call("standing", whoever);\n') == []
    assert found(tmp_path, "a.md", "The `stands` of [it](whoever.md), and <a href='behind'>it</a>.\n") == []


def test_the_parts_of_one_message_are_one_sentence(tmp_path: Path) -> None:
    message = 'raise ValueError(\n    f"{path} is "\n    "no mapping, in front "\n    f"of {it!r} {x}"\n)\n'

    assert found(tmp_path, "a.py", message) == [(2, "is no NOUN"), (3, "behind, in front of")]
    assert found(tmp_path, "a.c", 'f("it is "\n  "no list");\n') == [(1, "is no NOUN")]


def test_a_sentence_goes_on_in_the_next_line_of_a_comment(tmp_path: Path) -> None:
    assert found(tmp_path, "a.py", "x = 1  # it\ny = 2\n# what is\n#: there\n") == [(3, "is there")]
    assert found(tmp_path, "a.c", "/* It is\n * no list. */\n") == [(1, "is no NOUN")]
    assert found(tmp_path, "a.md", "- It is\n  no list.\n") == [(1, "is no NOUN")]


def test_a_sentence_ends_with_its_paragraph(tmp_path: Path) -> None:
    assert found(tmp_path, "a.py", "# what it is\n\n# no list\n") == []
    assert found(tmp_path, "b.py", "x = 'that is'  # no list\n") == []
    assert found(tmp_path, "a.md", "what it is\n\nno list\n- it is\n- no list\n\n| it is | no list |\n") == []
    assert found(tmp_path, "b.py", r'x = "that it is\nno list"' + "\n") == []


def test_each_cell_of_a_table_begins_a_sentence(tmp_path: Path) -> None:
    assert found(tmp_path, "a.md", "| a | b |\n|---|---|\n| file | Who reads it waits. |\n") == [(3, "headless who")]


def test_of_fenced_blocks_python_is_read_and_output_is_not(tmp_path: Path) -> None:
    page = "1. So:\n\n    ```python\n    x = 1  # whoever\n    ```\n\n```console\n$ whoever\n```\n\nIt stands.\n"

    assert found(tmp_path, "a.md", page) == [(4, "whoever"), (11, "stands")]


def test_it_prints_place_words_and_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("Good.\nIt is written anew.\n")
    (tmp_path / "docs" / "a.svg").write_text("anew\n")
    monkeypatch.chdir(tmp_path)

    assert words.main(["docs"]) == 1
    assert capsys.readouterr().out == "docs/a.md:2: “anew”: write “again”, “rewrite”, “new”\n"

    assert words.main(["--count", "docs"]) == 1
    counts = capsys.readouterr().out
    assert re.search(r"(?m)^ +1 anew$", counts)
    assert re.search(r"(?m)^ +0 stands$", counts)
    assert counts.endswith(" 1 in all\n")

    (tmp_path / "docs" / "a.md").write_text("Good.\n")
    assert words.main(["docs"]) == 0
    assert capsys.readouterr().out == ""


def test_a_path_that_does_not_exist_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        words.main(["no/such.md"])

    assert "no/such.md does not exist." in capsys.readouterr().err


def test_the_paths_of_the_settings_exist() -> None:
    table = words.settings()
    named = [*table["paths"], *table["except"], *table.get("later", [])]

    assert [path for path in named if not (words.ROOT / path).exists()] == []


def test_what_comes_later_is_read_only_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("now.md", "later.md", "never.md"):
        (tmp_path / name).write_text("It is written anew.\n")
    table = {"paths": ["now.md", "later.md", "never.md"], "except": ["never.md"], "later": ["later.md"]}
    rules = words.idioms()
    monkeypatch.setattr(words, "ROOT", tmp_path)
    monkeypatch.setattr(words, "idioms", lambda: rules)
    monkeypatch.setattr(words, "settings", lambda: table)
    monkeypatch.chdir(tmp_path)

    words.main([])
    assert ["now.md:1"] == [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()]

    words.main(["later.md", "never.md"])
    assert ["later.md:1"] == [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()]
