"""The paper's Tables 1 to 6 beside our counts, laid out to be printed or written."""

from __future__ import annotations

from ffconv.analysis.paper import NOT_AVAILABLE, Comparison, PaperTable, compare
from ffconv.analysis.paper_formulas import NOTES, FormulaRow, LayerShape, compare_formulas
from ffconv.analysis.reports import GIGA, MEGA, figures, size_text
from ffconv.analysis.tables import Record, Report, Table

_KILO = 1e3
_PUBLIC_UNIT = 2**30
_WORDS = ("method", "source", "input", "counted here")
_COLUMNS = (
    *_WORDS,
    *(
        f"{quantity}\n{which}"
        for quantity in ("parameters\n(k)", "parameters\n(M)", "multiply-\nadds (M)", "multiply-\nadds (G)")
        for which in ("paper", "ours", "difference")
    ),
    "multiply-\nadds (G)\nwith norms",
    "FFT (G)",
    "with zero\nblock (G)",
    "public\n(2^30)",
    "as the\npublic",
)


def formulas_report(shape: LayerShape | None = None) -> Report:
    """The paper's Table 1 for one layer."""
    shape = shape or LayerShape()
    formulas = compare_formulas(shape)
    rows = [
        {
            "method": row.part,
            **_against("parameters\n(k)", row.parameters / _KILO, row.ours.parameters / _KILO, digits=3),
            **_against(
                "multiply-\nadds (M)", row.multiply_adds / MEGA, row.ours.multiply_adds / MEGA, digits=3
            ),
        }
        for row in formulas
    ]
    title = (
        f"Table 1 of the paper for one layer: C1 = {shape.in_channels}, C2 = {shape.out_channels}, "
        f"K = {shape.kernel_size}, a = {shape.ratio:g}, {shape.side} x {shape.side}"
    )
    return Report(_table(title, rows, NOTES), [_formula_record(row) for row in formulas])


def paper_report(table: PaperTable) -> Report:
    """One of the paper's Tables 2 to 6 beside our count."""
    sizes = {size_text(row.input) for row in table.rows}
    notes: list[str] = []
    rows, records = [], []
    before = None
    for comparison in compare(table):
        row = comparison.row
        cells = _counted(comparison)
        if row is not before:  # a further reading of a row does not name it again
            mark = f" [{len(notes) + 1}]" if row.why else ""
            notes += [f"{mark.strip()} {row.method}: {row.why}"] if row.why else []
            cells |= {"method": row.method + mark, "source": row.source}
            cells |= {f"paper's\n{metric} (%)": f"{value}" for metric, value in row.accuracy.items()}
            cells |= {"input": size_text(row.input)} if len(sizes) > 1 else {}
        before = row
        rows.append(cells)
        records.append(_paper_record(table.number, comparison))
    size = f", input {sizes.pop()}" if len(sizes) == 1 else ""
    title = f"Table {table.number} of the paper: {table.title}{size}"
    return Report(_table(title, rows, (*notes, *table.notes)), records)


def _counted(comparison: Comparison) -> dict[str, str]:
    """What we count for a row, beside what the paper says of it."""
    row, ours = comparison.row, comparison.ours
    parameters = None if ours is None else ours.parameters / MEGA
    multiply_adds = None if ours is None else ours.multiply_adds / GIGA
    cells = {
        "counted here": comparison.model.replace(",", ", "),
        **_against("parameters\n(M)", row.parameters, parameters, digits=2),
        **_against("multiply-\nadds (G)", row.multiply_adds, multiply_adds, digits=3),
    }
    if ours is None:
        missing = f"{comparison.model}: {NOT_AVAILABLE}" if comparison.model else ""
        return {**cells, "counted here": missing}
    if row.public is not None:
        as_public = f"{(comparison.with_transposed or 0) / _PUBLIC_UNIT:.2f}"
        cells |= {"public\n(2^30)": f"{row.public}", "as the\npublic": as_public}
    return {
        **cells,
        "multiply-\nadds (G)\nwith norms": f"{(comparison.with_norms or 0) / GIGA:.3f}",
        "FFT (G)": f"{ours.fft / GIGA:.3f}",
        "with zero\nblock (G)": f"{ours.executed / GIGA:.3f}",
    }


def _against(quantity: str, printed: float | None, ours: float | None, *, digits: int) -> dict[str, str]:
    """The paper's figure, ours, and ours less the paper's; what is not known is left out."""
    cells = {}
    if printed is not None:
        cells["paper"] = f"{round(printed, digits)}"
    if ours is not None:
        cells["ours"] = f"{ours:.{digits}f}"
    if printed is not None and ours is not None:
        cells["difference"] = f"{round(ours - printed, digits) + 0.0:+.{digits}f}"  # + 0.0: no -0.00
    return {f"{quantity}\n{which}": text for which, text in cells.items()}


def _table(title: str, rows: list[dict[str, str]], notes: tuple[str, ...]) -> Table:
    """The rows under the columns that any of them fills, accuracies last."""
    filled = dict.fromkeys(column for row in rows for column, text in row.items() if text)
    columns = [column for column in _COLUMNS if column in filled]
    columns += [column for column in filled if column not in _COLUMNS]
    cells = [[row.get(column, "") for column in columns] for row in rows]
    return Table(title, columns, cells, notes, left=sum(column in _WORDS for column in columns))


def _formula_record(row: FormulaRow) -> Record:
    return {
        "table": 1,
        "method": row.part,
        "paper_parameters": row.parameters,
        "paper_multiply_adds": row.multiply_adds,
        **figures(row.ours),
    }


def _paper_record(number: int, comparison: Comparison) -> Record:
    row, ours = comparison.row, comparison.ours
    counts = {}
    if ours is not None:
        counts = {
            "multiply_adds_with_norms": comparison.with_norms,
            "multiply_adds_with_transposed_at_output": comparison.with_transposed,
            **figures(ours),
        }
    return {
        "table": number,
        "method": row.method,
        "source": row.source,
        "input": size_text(row.input),
        "model": comparison.model,
        "available": ours is not None,
        "paper_parameters_millions": row.parameters,
        "paper_multiply_adds_giga": row.multiply_adds,
        "public_multiply_adds_2_30": row.public,
        **counts,
        **{f"paper_{metric}_percent": value for metric, value in row.accuracy.items()},
        "why": row.why,
    }
