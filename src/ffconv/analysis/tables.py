"""Tables of figures for people, and the same figures as CSV or JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from ffconv.files import write_atomically
from ffconv.wording import printable

Format = Literal["table", "csv", "json"]
Record = Mapping[str, Any]

_BETWEEN = 2  # characters between two columns
_NARROWEST = 12  # characters of a folded column of words
_NOTE_WIDTH = 100


@dataclass(frozen=True)
class Table:
    """A table as printed.

    Args:
        title: what the figures are.
        columns: headings, with units.
        rows: one text a column.
        notes: lines below the table.
        left: how many columns, from the first, are words; the others are figures and align right.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    left: int = 1


@dataclass(frozen=True)
class Report:
    """The same figures twice: rounded for people, exact for programs.

    Args:
        table: with units.
        records: one mapping a row, its values such as JSON can hold.
    """

    table: Table
    records: Sequence[Record]


def write_report(reports: Iterable[Report], form: Format, output: Path | None = None) -> None:
    """Print reports, or write them to a file.

    Args:
        reports: as tables they are printed as they come; as CSV or JSON they are one list of records.
        form: table, csv or json.
        output: file to write instead of standard output.
    Raises:
        InputError: if the file cannot be written.
    """
    text = io.StringIO() if output else sys.stdout
    if form == "table":
        for index, report in enumerate(reports):
            text.write("\n" if index else "")
            print_table(report.table, text)
    else:
        text.write(dump([record for report in reports for record in report.records], form))
    if output and isinstance(text, io.StringIO):
        write_atomically(output, text.getvalue().encode())


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Print through rich.

    On a terminal the widest column of words is folded if that makes the table fit. Else, and where there is
    no terminal, the table is as wide as it must be. Nothing is cut off.
    """
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    table = _printable(table)
    console = Console(file=file or sys.stdout)
    widths = _widths(table)
    if console.is_terminal:
        widths = _fitted(widths, console.width, table.left)
    if not console.is_terminal or _total(widths) > console.width:
        console = Console(file=file or sys.stdout, width=_total(widths))
    drawn = RichTable(box=None, pad_edge=False)
    for index, (column, width) in enumerate(zip(table.columns, widths, strict=True)):
        side = "left" if index < table.left else "right"
        drawn.add_column(Text(column), justify=side, width=width, overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    console.print(Text(table.title, style="bold"), soft_wrap=True)
    console.print(drawn)
    for note in table.notes:
        console.print(Text(textwrap.fill(note, _NOTE_WIDTH)), soft_wrap=True)


def _printable(table: Table) -> Table:
    """Return the table with control characters escaped, but for the line breaks of its cells."""

    def escaped(texts: Iterable[str]) -> list[str]:
        return ["\n".join(map(printable, text.split("\n"))) for text in texts]

    rows = [escaped(row) for row in table.rows]
    return Table(printable(table.title), escaped(table.columns), rows, escaped(table.notes), table.left)


def _widths(table: Table) -> list[int]:
    """Of each column the longest line of its heading and its cells."""
    return [
        max(len(line) for text in column for line in text.splitlines() or [""])
        for column in zip(table.columns, *table.rows, strict=True)
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _BETWEEN * len(widths)


def _fitted(widths: list[int], available: int, words: int) -> list[int]:
    """The widths with that of the widest column of words cut down to what is available, if that is enough."""
    widest = max(range(words), key=widths.__getitem__)
    left_over = widths[widest] - max(0, _total(widths) - available)
    if left_over < min(widths[widest], _NARROWEST):
        return widths
    return [left_over if index == widest else width for index, width in enumerate(widths)]


def dump(records: Sequence[Record], form: Literal["csv", "json"]) -> str:
    """Records as CSV (the columns of all of them, in order of appearance) or JSON text."""
    if form == "json":
        return json.dumps(list(records), indent=2) + "\n"
    text = io.StringIO()
    columns = list(dict.fromkeys(key for record in records for key in record))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
