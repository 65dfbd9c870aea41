"""Tables for people, CSV and JSON for programs."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from ffconv.analysis.tables import Report, Table, dump, print_table, write_report
from ffconv.errors import InputError

LONG = "a name of very many letters, " * 8
TABLE = Table("Title", ("name", "time\n(ms)"), [("short", "1.5"), (LONG, "12.25")], ("A note.",))


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_without_a_terminal_lines_are_aligned_and_whole() -> None:
    text = io.StringIO()
    print_table(TABLE, text)
    lines = text.getvalue().splitlines()
    assert lines[0] == "Title"
    assert lines[3].startswith("short ")
    assert lines[4].startswith(LONG)
    assert len({len(line) for line in lines[1:5]}) == 1
    assert lines[3].endswith(" 1.5")
    assert lines[5] == "A note."


@pytest.mark.usefixtures("_plain_terminal")
def test_on_a_terminal_words_are_folded_to_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = Terminal()
    print_table(TABLE, text)
    lines = text.getvalue().splitlines()
    assert max(map(len, lines[3:-1])) <= 60
    assert " ".join(lines).count("many") == 8


@pytest.mark.usefixtures("_plain_terminal")
def test_figures_are_never_cut_by_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    text = Terminal()
    print_table(Table("", ("name", "figure"), [("a name", "1234567890.123")]), text)
    assert "1234567890.123" in text.getvalue()


@pytest.mark.usefixtures("_plain_terminal")
def test_columns_that_do_not_fit_follow_below_with_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    columns = ("network", *(f"figure {n}" for n in range(6)))
    text = Terminal()
    print_table(Table("Title", columns, [("resnet", *(f"{n}.25" for n in range(6)))], ("A note.",)), text)
    lines = re.sub(r"\x1b\[[\d;]*m", "", text.getvalue()).splitlines()
    assert max(map(len, lines)) <= 40
    assert [line.split()[0] for line in lines if line] == ["Title", *["network", "resnet"] * 2, "A"]
    assert [line.split()[1:] for line in lines if line.startswith("resnet")] == [
        ["0.25", "1.25", "2.25"],
        ["3.25", "4.25", "5.25"],
    ]


@pytest.mark.usefixtures("_plain_terminal")
def test_a_path_is_never_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = "/data/" + 6 * "a_folder/" + "image.png"
    text = Terminal()
    print_table(Table("", ("image", "class", "%"), [(path, "tench, Tinca tinca", "9.50")], left=2), text)
    assert path in text.getvalue()


def test_markup_in_a_cell_is_text() -> None:
    text = io.StringIO()
    print_table(Table("", ("name",), [("[bold]x[/bold] [1]",)]), text)
    assert "[bold]x[/bold] [1]" in text.getvalue()


def test_csv_has_the_columns_of_all_records() -> None:
    assert dump([{"a": 1}, {"a": 2, "b": "x,y"}], "csv") == 'a,b\n1,\n2,"x,y"\n'


def test_json_keeps_numbers() -> None:
    records = [{"a": 1, "b": None}, {"a": 0.5}]
    assert json.loads(dump(records, "json")) == records


def test_several_reports_are_one_list_of_records(tmp_path: Path) -> None:
    reports = [Report(TABLE, [{"a": 1}]), Report(TABLE, [{"a": 2}])]
    write_report(reports, "json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == [{"a": 1}, {"a": 2}]


def test_several_tables_are_parted_by_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_report([Report(TABLE, []), Report(TABLE, [])], "table")
    assert capsys.readouterr().out.count("A note.\n\nTitle") == 1


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*missing"):
        write_report([], "csv", tmp_path / "missing" / "out.csv")
