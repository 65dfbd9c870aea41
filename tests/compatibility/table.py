"""Writes the table of docs/compatibility.md from the matrix: cd tests && python -m compatibility.table"""

from __future__ import annotations

from pathlib import Path

from compatibility.families import FAMILIES
from compatibility.matrix import ROWS

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
_BEGIN, _END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def with_table(page: str) -> str:
    """The page with the matrix between its marks."""
    before, rest = page.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{_table()}\n{_END}{after}"


def _table() -> str:
    """Markdown, with a note for each reason why something does not hold."""
    reasons = list(dict.fromkeys(limit.reason for row in ROWS for limit in row.limits.values()))
    lines = [["", *(family.name for family in FAMILIES)], ["---"] * (1 + len(FAMILIES))]
    for row in ROWS:
        limits = [row.limits.get(family.name) for family in FAMILIES]
        lines.append(
            [
                row.name,
                *("yes" if each is None else f"no ({reasons.index(each.reason) + 1})" for each in limits),
            ]
        )
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    return "\n".join([*("| " + " | ".join(cells) + " |" for cells in lines), "", *notes, ""])


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
