"""A user's exceptions to the policy."""

from __future__ import annotations

import json

import pytest
from torch import nn

from ffconv.errors import InputError
from ffconv.surgery import Plan, conversion_report, convert
from small_networks import Residual, block


def network() -> nn.Sequential:
    """Stem 0.0, convolutions 1.0, 2.0 and 3.0, a head 4; one size, so no last stage."""
    return nn.Sequential(block(3, 8), block(8, 8), block(8, 8), block(8, 8), nn.Conv2d(8, 2, 1))


def outcomes(rules: object) -> dict[str, tuple[float, float] | str]:
    rows = conversion_report(convert(network(), rules=rules)).rows
    return {row.name: row.reason or (row.ratio_in, row.ratio_out) for row in rows}


DEFAULT = {
    "0.0": "input stem",
    "1.0": (0.0, 0.25),
    "2.0": (0.25, 0.25),
    "3.0": (0.25, 0.25),
    "4": "output head",
}


def test_without_rules() -> None:
    assert outcomes(None) == DEFAULT


def test_none_leaves_a_convolution_and_global_channels_begin_anew_behind() -> None:
    expected = {**DEFAULT, "2.0": "left by a rule", "3.0": (0.0, 0.25)}
    assert outcomes({"2.0": None}) == expected


def test_number_is_the_ratio_of_the_map_and_what_reads_it_follows() -> None:
    assert outcomes({"2.*": 0.5}) == {**DEFAULT, "2.0": (0.25, 0.5), "3.0": (0.5, 0.25)}


def test_number_does_not_convert_what_the_policy_leaves() -> None:
    assert outcomes({"*": 0.5}) == {**DEFAULT, "1.0": (0.0, 0.5), "2.0": (0.5, 0.5), "3.0": (0.5, 0.5)}


def test_pair_converts_a_head() -> None:
    assert outcomes({"4": (0.25, 0.5)}) == {**DEFAULT, "4": (0.25, 0.5)}


def test_pair_holds_whatever_the_map_that_is_read() -> None:
    assert outcomes({"2.0": (0.5, 0.0)}) == {**DEFAULT, "2.0": (0.5, 0.0), "3.0": (0.0, 0.25)}


def test_of_two_ratios_of_maps_that_are_added_the_larger_one_is_read() -> None:
    model = nn.Sequential(block(3, 8), Residual(8, 8), Residual(8, 8), Residual(8, 8))
    rows = conversion_report(convert(model, rules={"1.conv2": 0.5, "2.conv2": 0.25}))
    assert (rows["2.conv1"].ratio_in, rows["3.conv1"].ratio_in) == (0.5, 0.5)


def test_first_pattern_that_matches_counts() -> None:
    assert outcomes({"3.0": None, "*": 0.25}) == {**DEFAULT, "3.0": "left by a rule"}


def test_function_sees_the_plan_and_may_return_it() -> None:
    seen: dict[str, Plan] = {}

    def rule(name: str, module: nn.Module, plan: Plan) -> Plan:
        seen[name] = plan
        return plan

    assert outcomes(rule) == DEFAULT
    assert seen["1.0"] == Plan(0.0, 0.25)
    assert seen["4"] == Plan(reason="output head")


def test_function_may_leave_with_a_reason() -> None:
    def rule(name: str, module: nn.Module, plan: Plan) -> Plan:
        return Plan(reason="too slow") if name == "3.0" else plan

    assert outcomes(rule) == {**DEFAULT, "3.0": "too slow"}


@pytest.mark.parametrize("decision", [1.5, -0.1, True, (0.5,), (0.5, 2.0), "half"])
def test_decision_that_is_no_ratio_is_refused(decision: object) -> None:
    with pytest.raises(InputError, match=r"rule for 2\.0 gives"):
        outcomes({"2.0": decision})


def test_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"pattern 'layer9\.\*' in rules matches none of the 5 convolutions"):
        outcomes({"layer9.*": None})


def test_pair_for_what_cannot_be_an_ffc_is_refused() -> None:
    model = nn.Sequential(block(3, 8), nn.ConvTranspose2d(8, 8, 2, 2), block(8, 8))
    with pytest.raises(InputError, match="rule for 1 cannot be followed: transposed"):
        convert(model, rules={"1": (0.25, 0.25)})


def test_pair_that_groups_do_not_divide_is_refused() -> None:
    model = nn.Sequential(block(3, 8), block(8, 8, groups=4), block(8, 8))
    with pytest.raises(InputError, match=r"rule for 1\.0 cannot be followed: groups=4 must divide"):
        convert(model, rules={"1.0": (0.25, 0.25)})


def test_refused_rule_leaves_the_model_as_it_is() -> None:
    model = network()
    before = str(model)
    with pytest.raises(InputError):
        convert(model, rules={"2.0": (0.5, 2.0)})
    assert str(model) == before


def test_arguments_of_a_report_do_the_same_again_after_json() -> None:
    report = conversion_report(convert(network(), 0.5, lfu=False, rules={"2.0": None}))
    again = convert(network(), **json.loads(json.dumps(report.arguments())))
    assert [row.converted for row in conversion_report(again).rows] == [row.converted for row in report.rows]
    assert [(row.ratio_in, row.ratio_out) for row in conversion_report(again).rows] == [
        (row.ratio_in, row.ratio_out) for row in report.rows
    ]
