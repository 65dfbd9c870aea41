from __future__ import annotations

import math

import pytest

from ffconv.errors import InputError
from ffconv.tasks.ablation import Score, Variant, draw, record, reports, variants

SHARED = {"drop_path_rate": 0.1, "ratio": 0.7, "lfu": True}


@pytest.mark.parametrize(
    ("name", "network", "arguments"),
    [
        ("plain", "resnet18", {"zero_init_last": False}),
        ("ratio0.125", "ffc_resnet18", {"ratio": 0.125}),
        ("ratio1", "ffc_resnet18", {"ratio": 1.0}),
        ("ratio.5-lfu", "ffc_resnet18", {"ratio": 0.5, "lfu": True}),
        ("ratio0.25-no-l2g", "ffc_resnet18", {"ratio": 0.25, "local_to_global": False}),
        ("ratio0.25-lfu-no-g2l", "ffc_resnet18", {"ratio": 0.25, "lfu": True, "global_to_local": False}),
        (
            "ratio0.25-no-l2g-no-g2l",
            "ffc_resnet18",
            {"ratio": 0.25, "local_to_global": False, "global_to_local": False},
        ),
    ],
)
def test_a_variants_name_says_its_network(name: str, network: str, arguments: dict[str, object]):
    on = {} if name == "plain" else {"lfu": False, "local_to_global": True, "global_to_local": True}
    expected = {**on, **arguments, "drop_path_rate": 0.1}
    assert Variant.parse(name).network("ffc_resnet18", SHARED) == (network, expected)


@pytest.mark.parametrize("name", ["ratio", "ratio0.5-nolfu", "ratio-1", "table4", "ratio0.5-no-g2l-no-l2g"])
def test_a_misspelt_variant_is_refused(name: str):
    with pytest.raises(InputError, match=r"must be plain, ratioR\[-lfu\]"):
        Variant.parse(name)


def test_a_ratio_above_1_is_refused():
    with pytest.raises(InputError, match=r"ratio=1\.5 must lie in \[0, 1\]"):
        Variant.parse("ratio1.5")


def test_only_ffc_networks_have_variants():
    with pytest.raises(InputError, match="must be an ffc_"):
        Variant.parse("plain").network("resnet18", {})


def test_the_default_list_is_the_papers():
    names = [variant.name for variant in variants(["table2", "table3", "cross-scale"])]
    assert names == [
        *("plain", "ratio0.125", "ratio0.25", "ratio0.5", "ratio0.75", "ratio1"),
        *("ratio0.25-lfu", "ratio0.5-lfu"),
        *("ratio0.25-no-g2l", "ratio0.25-no-l2g", "ratio0.25-no-l2g-no-g2l"),
    ]


def score(name: str, *values: float) -> Score:
    return Score(Variant.parse(name), 11_600_000, 1.8e9, "top1", values)


def test_mean_and_spread_are_over_the_seeds():
    found = score("plain", 70.0, 72.0, 74.0)
    assert (found.mean, found.spread, found.text) == (72.0, 2.0, "72.00 ± 2.00")


def test_one_seed_has_no_spread():
    found = score("plain", 70.0)
    assert math.isnan(found.spread)
    assert found.text == "70.00"


ALL = [score(v.name, 70.0, 71.0) for v in variants(["table2", "table3", "cross-scale"])]


def test_tables_hold_the_papers_rows():
    tables = [report.table for report in reports(ALL)]
    assert [[row[0] for row in table.rows] for table in tables] == [
        ["0 (plain)", "0.125", "0.25", "0.5", "0.75", "1"],
        ["0.25", "0.25", "0.5", "0.5"],
        ["0.25", "0.25", "0.25", "0.25"],
    ]


def test_a_row_tells_switches_cost_and_score():
    _, lfu, paths = (report.table for report in reports(ALL))
    assert lfu.rows[1] == ("0.25", "yes", "yes", "yes", "11.60", "1.800", "70.50 ± 0.71", "2")
    assert [(row[2], row[3]) for row in paths.rows] == [
        ("yes", "yes"),
        ("yes", "no"),
        ("no", "yes"),
        ("no", "no"),
    ]


def test_tables_without_variants_are_left_out():
    assert [report.table.title[:7] for report in reports([score("plain", 1.0)])] == ["Table 2"]


def test_records_keep_each_seeds_value():
    found = record(score("ratio0.25-lfu", 70.0, 71.0))
    assert (found["ratio"], found["lfu"], found["seed_0"], found["seed_1"]) == (0.25, True, 70.0, 71.0)


def test_the_picture_is_drawn():
    assert draw(ALL).startswith(b"\x89PNG")
