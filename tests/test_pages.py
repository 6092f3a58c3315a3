"""The pages for users work as they are printed: a reader who copies each block sees what the page shows."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tools.docs import PAGES, follow

ROOT = Path(__file__).parent.parent
HOWTO = ROOT / "docs" / "howto"
CRON = HOWTO / "cron-systemd.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_whoever_follows_a_page_sees_what_it_shows(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each block of code is saved, typed or executed, in order, in an empty folder."""
    assert follow(page, tmp_path, request)


def test_the_recording_in_the_readme_is_one(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It is repeated, and must print the same."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    page = tmp_path / "recording.md"
    page.write_text(text.partition("<!-- recording -->\n")[2].partition("<!-- end -->")[0], encoding="utf-8")

    assert 2 == follow(page, tmp_path, request)


def test_the_messages_that_the_page_about_damage_explains_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "howto-damage.md").read_text(encoding="utf-8")
    rows = re.search(r"<!-- what pstate check says -->\n\|.*\n\|.*\n((?:\|.*\n)+)", page)
    assert rows is not None
    phrases = [phrase for row in rows[1].splitlines() for phrase in re.findall("`(.*?)`", row.split("|")[1])]
    strings = "".join(
        str(node.value)
        for file in (ROOT / "pstate").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
    )

    assert len(phrases) > 8
    assert [] == [phrase for phrase in phrases if phrase not in strings]


def test_the_units_are_what_systemd_reads(tmp_path: Path) -> None:
    """It tells which lines it does not understand. The programs do not exist here, so /bin/true replaces them."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd here")
    page = CRON.read_text(encoding="utf-8")
    units = re.findall(r'^```ini title="([\w.]+)"\n(.*?)^```$', page, re.M | re.S)
    assert ["heart.service", "report.service", "report.timer"] == sorted(name for name, _ in units)
    for name, unit in units:
        (tmp_path / name).write_text(re.sub(r"/srv/\w+/venv/bin/\w+", "/bin/true", unit))

    done = subprocess.run(
        [verify, "verify", *(f"./{name}" for name, _ in units)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_the_lines_for_cron_are_five_times_and_a_command() -> None:
    found = re.search(r'^```text title="crontab"\n(.*?)^```$', CRON.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    lines = [line for line in found[1].splitlines() if not line.startswith("#")]

    assert 2 == len(lines)
    for line in lines:
        command = re.fullmatch(r"(?:[\d*/,-]+ +){5}([^%]+)", line)  # a % would be a newline
        assert command is not None, line
        subprocess.run(["bash", "-n", "-c", command[1]], check=True)


def test_the_folder_is_mounted_into_the_container() -> None:
    page = (HOWTO / "containers-nfs.md").read_text(encoding="utf-8")
    found = re.search(r'^```yaml title="compose.yaml"\n(.*?)^```$', page, re.M | re.S)
    assert found is not None
    worker = yaml.safe_load(found[1])["services"]["worker"]

    assert ["./state:/state"] == worker["volumes"]
    assert worker["command"][-1].startswith("/state/")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        pytest.param("```console\n$ echo a\nb\n```\n", "shown:", id="another output"),
        pytest.param("```console\n$ echo a\n```\n", "shown:", id="an output that is not shown"),
        pytest.param(
            '```yaml title="a"\nb: 1\n```\n<!-- the file now -->\n```yaml title="a"\nb: 2\n```\n',
            "shown:",
            id="another file",
        ),
        pytest.param("```python\nprint(1)\n```\n```text\n2\n```\n", "shown:", id="another block of text"),
        pytest.param("```yaml\na: 1\n```\n", "a block of yaml", id="a block that nobody checks"),
        pytest.param('```sh title="a.sh"\necho\n```\n', "a.sh.*no later block", id="a file that nobody uses"),
    ],
)
def test_a_page_that_shows_something_else_is_found_out(
    text: str, mistake: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A check that cannot fail would prove nothing."""
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")

    with pytest.raises(AssertionError, match=mistake):
        follow(page, tmp_path, request)


def test_what_varies_need_not_be_the_same(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    page = tmp_path / "page.md"
    commands = "$ pwd; seq 9; echo so far; echo 0123abcd; cat <<E\n> more\n> E\n"
    page.write_text(f"```console\n{commands}$PWD\n1\n...\n9\nso ...\n89abcdef\nmore\n```\n", encoding="utf-8")

    assert 1 == follow(page, tmp_path, request)


def test_the_server_of_a_page_is_that_of_the_tests_and_nothing_stays_there(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Two pages that name it do not meet."""
    shown = "postgresql://role@db.example/app#s"
    blocks = (
        "```sql\nCREATE ROLE role LOGIN; GRANT CREATE ON DATABASE app TO role\n```\n",
        f"```python\nimport pstate\n\nstate = pstate.PersistedState('{shown}', n=1)\n"
        "print(state.n, pstate.path_of(state))\nstate.close()\n```\n",
        f"```text\n1 {shown}\n```\n",
        "```sql\nSELECT rev, body FROM pstate.record ORDER BY rev\n```\n",
        '```text\n0 | []\n1 | [["set",[],"n",1]]\n```\n',
    )
    page = tmp_path / "page.md"
    page.write_text("".join(blocks), encoding="utf-8")

    for number in range(2):
        (tmp_path / str(number)).mkdir()
        assert len(blocks) == follow(page, tmp_path / str(number), request)
