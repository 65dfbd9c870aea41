"""Conversion: what becomes an FFC, what is left and why, and what goes along."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import warnings
from collections.abc import Callable, Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import oracles
from ffconv import FFC2d
from ffconv.errors import InputError
from ffconv.surgery import Mixing, conversion_report, convert
from small_networks import Residual, UNet, block


def ratios(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Of the convolutions that became FFCs."""
    rows = conversion_report(model).rows
    return {row.name: (row.ratio_in, row.ratio_out) for row in rows if row.converted}


def reasons(model: nn.Module) -> dict[str, str]:
    """Of the convolutions that were left."""
    return {row.name: row.reason for row in conversion_report(model).rows if row.reason is not None}


def chain(*middle: nn.Module) -> nn.Sequential:
    """A stem, what a test is about, and one more convolution, all on maps of one size."""
    return nn.Sequential(block(3, 8), *middle, block(8, 8))


@pytest.fixture
def small() -> Tensor:
    return torch.randn(2, 3, 16, 12)


def test_unet_with_resizing() -> None:
    assert ratios(convert(UNet(bilinear=True))) == {
        "down1.0": (0.0, 0.25),
        "down1.3": (0.25, 0.25),
        "down2.0": (0.25, 0.25),
        "down2.3": (0.25, 0.25),
        "conv1.0": (0.25, 0.25),
        "conv1.3": (0.25, 0.25),
        "conv2.0": (0.25, 0.0),
    }


def test_unet_reasons() -> None:
    none = "no global channels on either side"
    assert reasons(convert(UNet(bilinear=False))) == {
        "inc.0": "input stem",
        "inc.3": "input stem",
        "up1": "transposed",
        "up2": "transposed",
        # Both of its parts are plain: the stem's map and a transposed convolution's.
        "conv2.0": none,
        "conv2.3": none,
        "outc": "output head",
    }


def test_unet_mixes_where_it_concatenates() -> None:
    assert conversion_report(convert(UNet(bilinear=True))).mixings == (
        Mixing("conv1.0", ("concatenation",), ("down1.3", "down2.3")),
        Mixing("conv2.0", ("concatenation",), ("conv1.3",)),
    )


def test_shuffle_and_split_are_reported() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            kept, changed = x.chunk(2, dim=1)
            return torch.cat([kept, F.relu(self.conv(changed))], dim=1)

    model = convert(chain(block(8, 8), nn.ChannelShuffle(2), Half()))
    assert conversion_report(model).mixings == (
        Mixing("3.conv", ("shuffle", "split"), ("1.0",)),
        Mixing("4.0", ("shuffle", "split", "concatenation"), ("1.0", "3.conv")),
    )


def test_sum_with_a_plain_map_takes_the_split_of_the_other() -> None:
    """The stem's map is read as local by the block and joins its sum by position."""
    model = convert(nn.Sequential(block(3, 8), Residual(8, 8), Residual(8, 8)))
    assert ratios(model) == {
        "1.conv1": (0.0, 0.25),
        "1.conv2": (0.25, 0.25),
        "2.conv1": (0.25, 0.25),
        "2.conv2": (0.25, 0.25),
    }


def test_split_passes_through_depthwise_convolutions() -> None:
    model = convert(chain(block(8, 8), block(8, 8, groups=8)))
    assert ratios(model) == {"1.0": (0.0, 0.25), "3.0": (0.25, 0.25)}
    assert reasons(model)["2.0"] == "depthwise"


def test_squeeze_and_excitation_is_left() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(self.conv(x.mean((2, 3), keepdim=True)))

    model = convert(chain(block(8, 8), Gate()))
    assert reasons(model)["2.conv"] == "1x1 map"
    assert ratios(model)["3.0"] == (0.25, 0.25)


def test_groups_that_do_not_divide_are_left_and_the_next_begins_anew() -> None:
    model = convert(chain(block(8, 8), block(8, 8, groups=4)))
    assert "groups=4 must divide in_channels=8" in reasons(model)["2.0"]
    assert ratios(model)["3.0"] == (0.0, 0.25)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (type("MyConv", (nn.Conv2d,), {})(8, 8, 1), "unknown subclass MyConv"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1)), "unknown subclass ParametrizedConv2d"),
        (nn.ConvTranspose2d(8, 8, 1), "transposed"),
        (FFC2d(8, 8, 1, ratio_in=0), "already an FFC"),
        (nn.Sequential(nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 1))[0], "too few channels for a ratio of 0.25"),
    ],
)
def test_what_cannot_be_an_ffc_is_left_with_its_reason(layer: nn.Module, reason: str) -> None:
    rest = [nn.Conv2d(3, 8, 1)] if layer.out_channels == 3 else []
    assert reasons(convert(chain(layer, *rest)))["1"] == reason


def test_weight_of_a_hook_is_left() -> None:
    conv = nn.Conv2d(8, 8, 1)
    weight = conv.weight
    del conv._parameters["weight"]
    conv.register_parameter("direction", weight)
    conv.register_forward_pre_hook(lambda module, inputs: setattr(module, "weight", module.direction * 2))
    conv.weight = weight * 2
    assert reasons(convert(chain(conv)))["1"] == "weight computed by a hook"


def test_weight_that_two_modules_share_is_left() -> None:
    a, b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
    b.weight = a.weight
    left = reasons(convert(chain(a, b)))
    assert left["1"] == left["2"] == "shares its weight with another module"


def test_not_reached_is_left() -> None:
    model = chain()
    model[0].spare = nn.Conv2d(8, 8, 1)
    model[0].forward = lambda x: model[0][2](model[0][1](model[0][0](x)))
    assert reasons(convert(model))["0.spare"] == "not reached in the trial forward"


def test_existing_ffc_gives_its_ratio_to_what_reads_it() -> None:
    model = convert(chain(FFC2d(8, 8, 1, ratio_in=0, ratio_out=0.5), nn.ReLU()))
    assert ratios(model) == {"3.0": (0.5, 0.25)}


def test_shared_module_becomes_one_ffc_at_all_its_places() -> None:
    shared = nn.Conv2d(8, 8, 3, padding=1)
    model = convert(chain(shared, nn.ReLU(), shared))
    assert isinstance(model[1], FFC2d)
    assert model[1] is model[3]


def test_ratio_0_is_the_network_as_it_was(small: Tensor) -> None:
    model = UNet(bilinear=True).eval()
    expected = model(small)
    assert torch.equal(convert(model, 0.0)(small), expected)


def test_weights_are_carried_into_the_parts() -> None:
    model = chain(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 8, 1))
    weight = model[2].weight.detach().clone()
    convert(model)
    assert torch.equal(model[2].weight_l2l, weight[:9, :6])
    assert torch.equal(model[2].weight_l2g, weight[9:, :6])
    assert torch.equal(model[2].weight_g2l, weight[:9, 6:])


def test_bias_is_carried() -> None:
    model = chain(nn.Conv2d(8, 8, 1))
    bias = model[1].bias.detach().clone()
    assert torch.equal(convert(model)[1].bias, bias)


def test_convolution_that_ends_the_global_channels_computes_what_it_did(small: Tensor) -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    x = torch.randn(2, 8, 9, 7)
    expected = conv(x)
    model = convert(chain(conv), rules={"1": (0.25, 0.0)})
    torch.testing.assert_close(model[1](x), expected)


def test_switches_spare_the_only_paths() -> None:
    """Where the global channels begin and end, the path between local and global is the only one."""
    model = chain(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.MaxPool2d(2))
    convert(model, local_to_global=False, global_to_local=False)
    begin, middle, end = model[1], model[2], model[4][0]
    assert begin.weight_l2g is not None
    assert middle.weight_l2g is None
    assert middle.weight_g2l is None
    assert end.weight_g2l is not None


def test_lfu_can_be_left_out() -> None:
    model = convert(chain(nn.Conv2d(8, 8, 1)), lfu=False)
    assert model[2][0].spectral.lfu is None


def test_geometry_is_that_of_the_convolution(small: Tensor) -> None:
    arguments = {"stride": (1, 2), "padding": (2, 3), "dilation": (2, 1), "padding_mode": "circular"}
    model = chain(nn.Conv2d(8, 8, (3, 5), bias=False, **arguments))
    expected = model(small).shape
    converted = convert(model)
    assert converted(small).shape == expected
    assert {name: getattr(converted[1], name) for name in arguments} == arguments


def test_data_type_is_kept() -> None:
    assert next(convert(chain().double())[1][0].parameters()).dtype == torch.float64


@pytest.mark.gpu
def test_device_is_kept() -> None:
    assert {parameter.device.type for parameter in convert(chain().cuda()).parameters()} == {"cuda"}


def test_memory_format_is_kept() -> None:
    model = convert(chain(nn.Conv2d(8, 8, 3)).to(memory_format=torch.channels_last))
    weight = model[1].weight_l2l
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_training_mode_is_kept() -> None:
    model = chain(nn.Conv2d(8, 8, 3))
    model[1].eval()
    convert(model)
    assert not model[1].training
    assert model[2][0].training


def test_frozen_convolutions_stay_frozen() -> None:
    model = chain(nn.Conv2d(8, 8, 3))
    model[1].weight.requires_grad_(False)
    convert(model)
    trained = [name for name, parameter in model[1].named_parameters() if parameter.requires_grad]
    assert trained == ["bias"]


def test_hooks_move_and_their_handles_still_remove_them(small: Tensor) -> None:
    model, seen = chain(nn.Conv2d(8, 8, 1)), []
    handle = model[1].register_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    convert(model)
    seen.clear()
    model(small)
    handle.remove()
    model(small)
    assert seen == [FFC2d]


def test_hooks_are_reported() -> None:
    model = chain(nn.Conv2d(8, 8, 1))
    model[1].register_forward_hook(lambda *_: None)
    assert conversion_report(convert(model))["1"].cells()[3] == "FFC 0 -> 0.25, 1 hook(s) moved"


def test_second_conversion_changes_nothing() -> None:
    model = convert(chain(nn.Conv2d(8, 8, 1)))
    state = model.state_dict()
    with pytest.warns(UserWarning, match=r"changed nothing in Sequential: 1 input stem, 2 already an FFC$"):
        convert(model)
    assert model.state_dict().keys() == state.keys()
    assert not ratios(model)


@pytest.mark.parametrize("options", [{"ratio": 0}, {"rules": {"1.0": (0, 0)}}])
def test_conversion_that_was_asked_to_change_nothing(options: dict) -> None:
    """By a ratio of 0 in silence; by rules with the warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        convert(nn.Sequential(block(3, 8), block(8, 8), nn.Conv2d(8, 2, 1)), **options)
    assert len(caught) == ("rules" in options)


class Aliased(nn.Module):
    """Runs its convolutions by what holds them beside the network's own attributes."""

    def __init__(self, keep: Callable[[list[nn.Module]], Iterable[Callable[[Tensor], Tensor]]]) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        self.steps = keep(list(self.inner))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for conv in self.inner[:1]:
            x = conv(x).relu()
        for step in self.steps:
            x = step(x).relu()
        return self.head(x)


def _closure(conv: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: conv(x)


KEPT = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "dict": lambda convs: dict.fromkeys(convs),
    "nested": lambda convs: [*convs[:1], *({"a": (convs[1],)}["a"])],
    "partial": lambda convs: [functools.partial(conv) for conv in convs],
    "call": lambda convs: [conv.__call__ for conv in convs],
    "closure": lambda convs: [_closure(conv) for conv in convs],
    "forward": lambda convs: [conv.forward for conv in convs],
    "weights": lambda convs: [functools.partial(F.conv2d, weight=convs[0].weight, padding=1)],
}


@pytest.mark.filterwarnings("ignore:convert changed nothing")  # where all are left
@pytest.mark.parametrize("keep", KEPT)
def test_what_runs_is_what_was_converted_whatever_else_holds_it(keep: str, small: Tensor) -> None:
    model = convert(Aliased(KEPT[keep]), example_input=small)
    if keep in ("forward", "weights"):  # past the module's call: left, with the reason
        assert reasons(model)["inner.0"] == "the network reads its weight"
    else:
        assert "inner.0" in ratios(model)
    used = dict(model.named_parameters())
    model(small).sum().backward()
    idle = {name.rpartition(".")[0] for name, parameter in used.items() if parameter.grad is None}
    assert not idle & ratios(model).keys()
    held = model.steps if keep in ("list", "tuple", "set", "dict") else ()
    assert {type(step) for step in held} <= {FFC2d}


def test_convolutions_stay_where_one_cannot_be_built(monkeypatch: pytest.MonkeyPatch, small: Tensor) -> None:
    model = chain(block(8, 8), block(8, 8))
    expected, kinds = model.eval()(small), [type(module) for module in model.modules()]
    loads = iter([FFC2d.load_dense_weight, None])
    monkeypatch.setattr(FFC2d, "load_dense_weight", lambda *given: next(loads)(*given))
    with pytest.raises(TypeError):
        convert(model)
    assert [type(module) for module in model.modules()] == kinds
    torch.testing.assert_close(model(small), expected, rtol=0, atol=0)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_instance_norms_shuffle_no_channels(affine: bool, batch: int) -> None:
    norms = [nn.InstanceNorm2d(8, affine=affine, track_running_stats=affine) for _ in range(3)]
    model = nn.Sequential(block(3, 8), *(layer for norm in norms for layer in (block(8, 8), norm)))
    report = conversion_report(convert(model, example_input=torch.randn(batch, 3, 16, 16)))
    assert report.mixings == ()
    assert ratios(model) == {"1.0": (0.0, 0.25), "3.0": (0.25, 0.25), "5.0": (0.25, 0.25)}


def test_state_of_the_unet_makes_a_round_trip(small: Tensor) -> None:
    model, other = (convert(UNet(bilinear=True)).eval() for _ in range(2))
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(small), model(small), rtol=0, atol=0)


def test_all_parameters_of_the_unet_take_part(small: Tensor) -> None:
    model = convert(UNet(bilinear=True))
    model(small).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_report_prints_a_table() -> None:
    model = convert(chain(block(8, 16, stride=2, groups=2)[0], nn.Conv2d(16, 8, 1)))
    lines = [line.split("  ") for line in str(conversion_report(model)).splitlines()]
    assert [[cell.strip() for cell in line if cell] for line in lines] == [
        ["convolution", "layer", "map", "outcome"],
        ["0.0", "Conv2d 3 -> 8, 3x3", "224x224 -> 224x224", "left: input stem"],
        ["1", "Conv2d 8 -> 16, 3x3, stride 2x2, groups 2", "224x224 -> 112x112", "FFC 0 -> 0.25"],
        ["2", "Conv2d 16 -> 8, 1x1", "112x112 -> 112x112", "FFC 0.25 -> 0.25"],
        ["3.0", "Conv2d 8 -> 8, 3x3", "112x112 -> 112x112", "FFC 0.25 -> 0.25"],
        ["3 of 4 convolutions converted"],
    ]


def test_report_prints_mixings() -> None:
    assert str(conversion_report(convert(UNet(bilinear=True)))).endswith(
        "7 of 11 convolutions converted\n"
        "local and global channels mixed between FFCs, each of which splits by position:\n"
        "  conv1.0 <- concatenation of down1.3, down2.3\n"
        "  conv2.0 <- concatenation of conv1.3"
    )


def test_report_is_made_of_plain_values() -> None:
    report = conversion_report(convert(UNet(bilinear=True)))
    read = json.loads(json.dumps(report.to_dict()))
    assert read["rows"][2]["ratio_out"] == 0.25
    assert read["mixings"][0]["sources"] == ["down1.3", "down2.3"]


def test_report_goes_along_in_copies_and_pickles() -> None:
    model = convert(UNet(bilinear=True))
    report = conversion_report(model)
    assert conversion_report(copy.deepcopy(model)) == report
    assert conversion_report(pickle.loads(pickle.dumps(model))) == report


def test_report_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="ffconv"):
        model = convert(chain())
    assert caplog.messages == [str(conversion_report(model))]


def test_report_knows_rows_by_name() -> None:
    report = conversion_report(convert(chain()))
    assert report["1.0"].converted
    with pytest.raises(KeyError):
        report["2.0"]


def test_network_that_was_not_converted_has_no_report() -> None:
    with pytest.raises(InputError, match=r"Sequential was not converted by ffconv\.convert"):
        conversion_report(chain())


@pytest.mark.parametrize("ratio", [-0.1, 1.5, float("nan"), "half"])
def test_ratio_outside_0_to_1_is_refused(ratio: object) -> None:
    with pytest.raises(InputError, match=f"ratio={ratio!r} must lie in"):
        convert(chain(), ratio)


def test_convolution_by_itself_is_left() -> None:
    with pytest.warns(UserWarning, match="changed nothing in Conv2d: 1 the model itself"):
        assert reasons(convert(nn.Conv2d(3, 8, 3))) == {"": "the model itself"}


def last_weights(model: nn.Module) -> list[Tensor]:
    """Weights of the last convolutions of Spectral Transforms."""
    layers = [module.spectral for module in model.modules() if isinstance(module, FFC2d)]
    return [spectral.conv2.weight for spectral in layers if spectral is not None]


def trained() -> nn.Sequential:
    model = chain(block(8, 8), block(8, 8))
    oracles.randomise_norms(model)
    return model


def test_spectral_transforms_of_a_trained_network_start_at_zero(small: Tensor) -> None:
    plain = trained()
    model = convert(copy.deepcopy(plain), 0.5)
    with torch.no_grad():  # what is left of the plain network
        plain[2][0].weight[4:, 4:] = 0
    assert [weight.any().item() for weight in last_weights(model)] == [False, False]
    x = plain[:2](small)
    torch.testing.assert_close(model[2].eval()(x), plain[2].eval()(x))


@pytest.mark.parametrize("zero", [True, False])
def test_the_start_of_spectral_transforms_can_be_chosen(zero: bool) -> None:
    for model in (trained(), chain(block(8, 8), block(8, 8))):
        convert(model, zero_init_spectral=zero)
        assert [weight.any().item() for weight in last_weights(model)] == [not zero] * 2


def test_spectral_transforms_of_a_new_network_do_not_start_at_zero() -> None:
    assert all(weight.any() for weight in last_weights(convert(chain(block(8, 8), block(8, 8)))))


@pytest.mark.parametrize("options", [{"ratio": 1}, {"local_to_global": False}])
def test_spectral_transforms_that_are_the_only_source_do_not_start_at_zero(options: dict) -> None:
    weights = last_weights(convert(trained(), **options))
    assert weights
    assert all(weight.any() for weight in weights)
