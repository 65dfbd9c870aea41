"""The paper's tables beside our counts."""

from __future__ import annotations

import pytest

from ffconv.analysis.networks import NetworkSpec
from ffconv.analysis.paper import Comparison, PaperRow, PaperTable, compare, paper_tables
from ffconv.analysis.paper_formulas import LayerShape, compare_formulas
from ffconv.analysis.paper_reports import formulas_report, paper_report
from ffconv.errors import InputError

TABLES = {table.number: table for table in paper_tables()}


@pytest.fixture(scope="module")
def comparisons() -> dict[int, list[Comparison]]:
    return {number: list(compare(TABLES[number])) for number in (2, 3)}


def rounded(value: float, unit: float) -> float:
    return round(value / unit, 1)


@pytest.mark.parametrize("number", [2, 3])
def test_parameters_agree_to_the_printed_digit(comparisons: dict[int, list[Comparison]], number: int) -> None:
    for comparison in comparisons[number]:
        if comparison.row.parameters is not None:
            assert comparison.ours is not None
            assert rounded(comparison.ours.parameters, 1e6) == comparison.row.parameters, comparison.model


@pytest.mark.parametrize("number", [2, 3])
def test_multiply_adds_with_norms_agree_to_the_printed_digit(
    comparisons: dict[int, list[Comparison]], number: int
) -> None:
    for comparison in comparisons[number]:
        if comparison.row.multiply_adds is not None:
            assert comparison.with_norms is not None
            assert rounded(comparison.with_norms, 1e9) == comparison.row.multiply_adds, comparison.model


def test_full_transforms_would_overshoot_at_ratio_one(comparisons: dict[int, list[Comparison]]) -> None:
    ratio_one = comparisons[2][-1]
    assert ratio_one.ours is not None
    assert ratio_one.with_norms is not None
    assert rounded(ratio_one.with_norms + ratio_one.ours.fft, 1e9) == 5.7


def test_table_5_parameters_agree_to_the_printed_digit_and_multiply_adds_to_a_percent_and_a_half() -> None:
    rows = tuple(row for row in TABLES[5].rows if row.source == "ours")
    assert len(rows) == 8
    for comparison in compare(PaperTable(5, "", rows)):
        row, ours = comparison.row, comparison.ours
        assert ours is not None
        assert row.parameters is not None
        assert row.multiply_adds is not None
        assert ours.multiply_adds / 1e9 == pytest.approx(row.multiply_adds, rel=0.015), comparison.model
        if not row.why:
            assert rounded(ours.parameters, 1e6) == row.parameters, comparison.model


# Of the networks of Table 5: multiply-adds in 10^9, parameters in 10^6.
VIDEO = {
    "c2d_resnet50": (19.49, 24.33),
    "c2d_resnet50_nl": (30.70, 31.69),
    "i3d_resnet50": (28.41, 28.04),
    "i3d_resnet50_nl": (39.62, 35.40),
    "ffc_c2d_resnet50,lfu=false": (19.91, 24.87),
    "ffc_c2d_resnet50_nl,lfu=false": (31.12, 32.23),
    "ffc_i3d_resnet50_nl,lfu=false": (39.99, 35.94),
}


def test_table_5_counts_convolutions_linear_layers_and_attention() -> None:
    rows = tuple(row for row in TABLES[5].rows if row.model in VIDEO)
    found = {
        comparison.model: (
            round(comparison.ours.multiply_adds / 1e9, 2),
            round(comparison.ours.parameters / 1e6, 2),
        )
        for comparison in compare(PaperTable(5, "", rows))
        if comparison.ours is not None
    }
    assert found == VIDEO


# Of SimpleBaseline: parameters in 10^6, multiply-adds in 10^9 at 256x192 and 384x288.
POSE = {
    "pose_resnet50": (34.0, 5.43, 12.21),
    "pose_resnet101": (53.0, 9.06, 20.39),
    "pose_resnet152": (68.6, 12.70, 28.57),
}


def test_table_6_counts_simple_baseline_at_both_sizes() -> None:
    table = PaperTable(6, "", tuple(row for row in TABLES[6].rows if row.model in POSE))
    found: dict[str, list[float]] = {}
    for comparison in compare(table):
        assert comparison.ours is not None
        figures = found.setdefault(comparison.model, [round(comparison.ours.parameters / 1e6, 1)])
        figures.append(round(comparison.ours.multiply_adds / 1e9, 2))
    assert {name: tuple(figures) for name, figures in found.items()} == POSE


def test_table_6_says_how_the_public_counts_come_about() -> None:
    row = PaperRow("A", "baseline", (3, 256, 192), model="pose_resnet101", public=12.4)
    table = paper_report(PaperTable(6, "", (row,))).table
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert (cells["public\n(2^30)"], cells["as the\npublic"]) == ("12.4", "12.38")


def test_every_network_of_table_6_can_be_built() -> None:
    models = [row.model for row in TABLES[6].rows if row.model]
    assert len(models) == 12
    assert all(NetworkSpec.parse(model).available for model in models)


def test_a_network_nobody_can_build_is_said_to_be_missing() -> None:
    row = PaperRow("C2D", "ours", (3, 8, 224, 224), model="no_such_network", parameters=24.3)
    table = paper_report(PaperTable(5, "video", (row,))).table
    assert table.rows == [["C2D", "ours", "no_such_network: model not available yet", "24.3"]]


def test_every_reading_of_a_row_is_counted() -> None:
    row = PaperRow("ResNet", "quoted", (3, 64, 64), model="resnet18", readings=("resnet34",), parameters=21.8)
    records = paper_report(PaperTable(4, "networks", (row,))).records
    assert [(record["model"], record["parameters"]) for record in records] == [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
    ]


def test_a_row_that_cannot_be_derived_says_why() -> None:
    row = PaperRow("ResNet", "quoted", (3, 64, 64), model="resnet18", parameters=99.0, why="a slip.")
    table = paper_report(PaperTable(4, "networks", (row,), notes=("counted",))).table
    assert table.rows[0][0] == "ResNet [1]"
    assert list(table.notes) == ["[1] ResNet: a slip.", "counted"]


def test_accuracies_are_marked_as_the_papers() -> None:
    table = paper_report(
        PaperTable(2, "", (PaperRow("A", "quoted", (3, 1, 1), accuracy={"top-1": 76.3}),))
    ).table
    assert table.columns[-1] == "paper's\ntop-1 (%)"
    assert table.rows[0][-1] == "76.3"


def test_printed_tables_are_complete() -> None:
    assert {number: len(table.rows) for number, table in TABLES.items()} == {2: 6, 3: 8, 4: 16, 5: 12, 6: 23}


def test_table_1_agrees_where_the_formula_is_exact() -> None:
    rows = {row.part: row for row in compare_formulas(LayerShape(32, 64, 3, 0.5, 14))}
    for part in ("vanilla", "l -> l", "l -> g", "g -> l"):
        assert rows[part].ours.parameters == rows[part].parameters
        assert rows[part].ours.multiply_adds == rows[part].multiply_adds


@pytest.mark.parametrize(("part", "units"), [("g -> g", 1.0), ("g -> g, LFU", 9 / 8)])
def test_the_units_cost_what_the_note_says_and_not_thirteen_sixteenths(part: str, units: float) -> None:
    shape = LayerShape(64, 64, 3, 0.5, 512)
    row = {row.part: row for row in compare_formulas(shape)}[part]
    scale = shape.ratio**2 * shape.out_channels * shape.side**2
    counted = row.ours.multiply_adds / scale - shape.in_channels / 2
    printed = row.multiply_adds / scale - shape.in_channels / 2
    # The half spectrum has one column more than half the map, or than half of a quadrant.
    assert counted / shape.out_channels == pytest.approx(units, rel=5e-3)
    assert printed / shape.out_channels == pytest.approx(13 / 16)


def test_table_1_prints_both_forms_of_g_to_g() -> None:
    assert [row[0] for row in formulas_report().table.rows][4:6] == ["g -> g", "g -> g, LFU"]


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(InputError, match="kernel_size=2 must be odd"):
        LayerShape(kernel_size=2)
