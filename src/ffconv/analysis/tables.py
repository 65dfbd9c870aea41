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

    On a terminal that is too narrow the widest column of words is folded between words; if that is not
    enough, the columns are printed in several parts, each with the first column. A word longer than the
    terminal, such as a path, stays in one piece. Elsewhere the table is as wide as it must be.
    """
    from rich.console import Console
    from rich.text import Text

    table = _printable(table)
    console = Console(file=file or sys.stdout)
    widths, parts = _widths(table), [list(range(len(table.columns)))]
    if console.is_terminal and _total(widths) > console.width:
        widths = _fitted(table, widths, console.width)
        parts = _parts(widths, console.width)
    console.print(Text(table.title, style="bold"), soft_wrap=True)
    for number, part in enumerate(parts):
        if number:
            console.print()
        _print_columns(table, part, widths, file)
    for note in table.notes:
        console.print(Text(textwrap.fill(note, _NOTE_WIDTH)), soft_wrap=True)


def _printable(table: Table) -> Table:
    """Return the table with control characters escaped, but for the line breaks of its cells."""

    def escaped(texts: Iterable[str]) -> list[str]:
        return ["\n".join(map(printable, text.split("\n"))) for text in texts]

    rows = [escaped(row) for row in table.rows]
    return Table(printable(table.title), escaped(table.columns), rows, escaped(table.notes), table.left)


def _print_columns(table: Table, part: Sequence[int], widths: Sequence[int], file: TextIO | None) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, pad_edge=False)
    for index in part:
        side = "left" if index < table.left else "right"
        drawn.add_column(Text(table.columns[index]), justify=side, width=widths[index], overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(row[index]) for index in part))
    needed = _total([widths[index] for index in part])
    console = Console(file=file or sys.stdout)
    if not console.is_terminal or needed > console.width:
        console = Console(file=file or sys.stdout, width=needed)
    console.print(drawn)


def _widths(table: Table) -> list[int]:
    """Of each column the longest line of its heading and its cells."""
    return [
        max(len(line) for text in column for line in text.splitlines() or [""])
        for column in zip(table.columns, *table.rows, strict=True)
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _BETWEEN * len(widths)


def _fitted(table: Table, widths: list[int], available: int) -> list[int]:
    """Return the widths with that of the widest column of words as small as needed, no word being cut."""
    cells = [(table.columns[index], *(row[index] for row in table.rows)) for index in range(table.left)]
    longest_word = [max(len(word) for text in column for word in text.split() or [""]) for column in cells]
    widest = max(range(table.left), key=lambda index: widths[index] - longest_word[index])
    least = max(min(widths[widest], _NARROWEST), longest_word[widest])
    wanted = max(least, widths[widest] - max(0, _total(widths) - available))
    return [wanted if index == widest else width for index, width in enumerate(widths)]


def _parts(widths: Sequence[int], available: int) -> list[list[int]]:
    """Split the columns into parts that fit, each of which begins with the first column.

    A table with one column that does not fit beside the first stays whole.
    """
    whole = list(range(len(widths)))
    if _total(widths) <= available or any(_total([widths[0], width]) > available for width in widths[1:]):
        return [whole]
    parts = [[0]]
    for index in whole[1:]:
        if _total([widths[one] for one in (*parts[-1], index)]) > available:
            parts.append([0])
        parts[-1].append(index)
    return parts


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
