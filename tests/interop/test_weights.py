"""Loading weights into a network: all of it or nothing, and a report of both."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import released
from ffconv.errors import InputError
from ffconv.interop.weights import WeightsMismatchError, load_weights
from ffconv.nn import FFC2d, FourierUnit, SpectralTransform

NORM = ("weight", "bias", "running_mean", "running_var")


class Block(nn.Module):
    """A stem, a basic block with a shortcut, and a classifier, by timm's names."""

    def __init__(self, channels=8, classes=3, ratio=0.5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, bias=False)
        self.layer1 = nn.ModuleList([nn.Module()])
        block = self.layer1[0]
        block.conv1 = FFC2d(channels, channels, 3, padding=1, bias=False, ratio_in=0, ratio_out=ratio)
        block.bn1 = nn.BatchNorm2d(channels)
        block.conv2 = FFC2d(channels, channels, 3, padding=1, bias=False, ratio=ratio)
        block.bn2 = nn.BatchNorm2d(channels)
        shortcut = FFC2d(channels, channels, 1, bias=False, ratio_in=0, ratio_out=ratio)
        block.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))
        self.fc = nn.Linear(channels, classes)

    def forward(self, images):
        x = self.conv1(images)
        block = self.layer1[0]
        y = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
        return self.fc(torch.relu(y + block.downsample(x)).mean((2, 3)))


def plain_block(channels=8, classes=3):
    """The state dict of the ordinary network of the same shape, whose shortcut is bare."""
    shapes = {"conv1.weight": [channels, 3, 3, 3], "fc.weight": [classes, channels], "fc.bias": [classes]}
    for index in (1, 2):
        shapes[f"layer1.0.conv{index}.weight"] = [channels, channels, 3, 3]
        for name in NORM:
            shapes[f"layer1.0.bn{index}.{name}"] = [channels]
        shapes[f"layer1.0.bn{index}.num_batches_tracked"] = []
    return released.random_weights(shapes)


def plain_forward(weights, images):
    x = F.conv2d(images, weights["conv1.weight"])
    y = F.conv2d(x, weights["layer1.0.conv1.weight"], padding=1)
    y = F.relu(released.norm(weights, "layer1.0.bn1", y))
    y = released.norm(weights, "layer1.0.bn2", F.conv2d(y, weights["layer1.0.conv2.weight"], padding=1))
    return F.linear(F.relu(x + y).mean((2, 3)), weights["fc.weight"], weights["fc.bias"])


def copy_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class TestOurs:
    def test_safetensors(self, tmp_path):
        saved, model = Block(), Block()
        save_file(saved.state_dict(), tmp_path / "model.safetensors")
        report = load_weights(model, tmp_path / "model.safetensors")
        assert unchanged(model, saved.state_dict())
        assert report.format == "ffconv"
        assert report.source == str(tmp_path / "model.safetensors")
        assert len(report.loaded) == len(saved.state_dict())

    @pytest.mark.parametrize(
        "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.", "network.module."]
    )
    def test_wrapped(self, prefix):
        saved, model = Block(), Block()
        load_weights(model, {f"{prefix}{name}": tensor for name, tensor in saved.state_dict().items()})
        assert unchanged(model, saved.state_dict())

    def test_compiled_part(self):
        saved, model = Block(), Block()
        weights = {name.replace("layer1.", "layer1._orig_mod."): w for name, w in saved.state_dict().items()}
        load_weights(model, weights)
        assert unchanged(model, saved.state_dict())

    def test_averaged_model(self):
        saved, model = Block(), Block()
        averaged = torch.optim.swa_utils.AveragedModel(saved)
        report = load_weights(model, {"model": Block().state_dict(), "model_ema": averaged.state_dict()})
        assert unchanged(model, saved.state_dict())
        assert report.source == "state dict [model_ema]"

    def test_chosen_entry(self):
        saved, model = Block(), Block()
        load_weights(model, {"model": saved.state_dict(), "ema": Block().state_dict()}, entry="model")
        assert unchanged(model, saved.state_dict())

    def test_first_name_that_the_network_has_is_kept(self):
        saved, model = (
            nn.Sequential(nn.Sequential(nn.Linear(2, 2))),
            nn.Sequential(nn.Sequential(nn.Linear(2, 2))),
        )
        load_weights(model, saved.state_dict())
        assert unchanged(model, saved.state_dict())

    def test_other_number_format(self):
        saved, model = Block().half(), Block()
        load_weights(model, saved.state_dict())
        assert model.fc.weight.dtype == torch.float32
        torch.testing.assert_close(model.fc.weight, saved.fc.weight.float(), rtol=0, atol=0)

    def test_ordinary_layer_takes_a_lone_part(self):
        """A layer with ratio 0 is an FFC in one network and an ordinary convolution in another."""
        saved, model = FFC2d(4, 6, 3, ratio=0), nn.Conv2d(4, 6, 3)
        load_weights(model, saved.state_dict())
        x = torch.randn(2, 4, 5, 5)
        torch.testing.assert_close(model(x), saved(x))


class TestPlain:
    def test_ratio_0_is_the_plain_network(self):
        weights, model, images = plain_block(), Block(ratio=0).eval(), torch.randn(2, 3, 9, 8)
        load_weights(model, weights)
        torch.testing.assert_close(model(images), plain_forward(weights, images), rtol=1e-4, atol=1e-4)

    def test_parts(self):
        weights, model = plain_block(), Block()
        load_weights(model, weights)
        expected = weights["layer1.0.conv2.weight"].clone()
        expected[4:, 4:] = 0
        torch.testing.assert_close(model.layer1[0].conv2.dense_weight().detach(), expected, rtol=0, atol=0)

    def test_norms(self):
        weights, model = plain_block(), Block()
        load_weights(model, weights)
        variance = model.layer1[0].bn2.running_var
        torch.testing.assert_close(variance, weights["layer1.0.bn2.running_var"], rtol=0, atol=0)

    def test_spectral_part_keeps_its_values(self):
        model = Block()
        before = copy_of(model)
        report = load_weights(model, plain_block())
        spectral = [name for name in before if ".spectral." in name]
        assert all(torch.equal(model.state_dict()[name], before[name]) for name in spectral)
        shortcut_norm = [name for name in before if ".downsample.1." in name]
        assert set(report.kept) == {*spectral, *shortcut_norm}

    def test_shortcut_that_is_not_bare(self):
        weights, model = plain_block(), Block()
        weights["layer1.0.downsample.0.weight"] = shortcut = torch.randn(8, 8, 1, 1)
        norm = {name: weights[f"layer1.0.bn1.{name}"] for name in model.layer1[0].bn1.state_dict()}
        weights |= {f"layer1.0.downsample.1.{name}": tensor for name, tensor in norm.items()}
        load_weights(model, weights)
        torch.testing.assert_close(model.layer1[0].downsample[0].dense_weight().detach(), shortcut)

    def test_bias(self):
        conv, ffc = nn.Conv2d(4, 4, 3), FFC2d(4, 4, 3)
        load_weights(ffc, conv.state_dict())
        assert torch.equal(ffc.bias, conv.bias)

    def test_old_norm_without_counter(self):
        weights, model = plain_block(), Block()
        del weights["layer1.0.bn1.num_batches_tracked"]
        assert "layer1.0.bn1.num_batches_tracked" in load_weights(model, weights).kept


class TestClassifier:
    def test_of_another_size_is_refused(self):
        model = Block(classes=5)
        before = copy_of(model)
        with pytest.raises(
            WeightsMismatchError, match=r"fc\.weight \(\(3, 8\) in the file, \(5, 8\) in the network\)"
        ):
            load_weights(model, plain_block(classes=3))
        assert unchanged(model, before)

    def test_is_kept_if_asked(self):
        model, weights = Block(classes=5), plain_block(classes=3)
        own = model.fc.weight.detach().clone()
        report = load_weights(model, weights, allow_new_classifier=True)
        assert torch.equal(model.fc.weight, own)
        assert torch.equal(model.conv1.weight, weights["conv1.weight"])
        assert {"fc.weight", "fc.bias"} < set(report.kept)

    def test_is_loaded_if_it_fits(self):
        model, weights = Block(classes=3), plain_block(classes=3)
        load_weights(model, weights, allow_new_classifier=True)
        assert torch.equal(model.fc.weight, weights["fc.weight"])

    def test_network_without_one(self):
        model, weights = Block(), plain_block()
        model.fc = nn.Identity()
        report = load_weights(model, weights, allow_new_classifier=True)
        assert report.fits

    def test_weights_without_one(self):
        model, weights = Block(), plain_block()
        del weights["fc.weight"], weights["fc.bias"]
        assert {"fc.weight", "fc.bias"} < set(load_weights(model, weights, allow_new_classifier=True).kept)


class TestFaults:
    def faulty(self):
        weights = Block().state_dict()
        del weights["layer1.0.bn1.bias"]
        weights["extra.weight"] = torch.zeros(2)
        weights["conv1.weight"] = torch.zeros(8, 1, 3, 3)
        return weights

    @pytest.mark.parametrize(
        "named",
        [
            r"1 missing: layer1\.0\.bn1\.bias",
            r"1 unexpected: extra\.weight",
            r"1 of another shape: conv1\.weight \(\(8, 1, 3, 3\) in the file, \(8, 3, 3, 3\)",
        ],
    )
    def test_are_named(self, named):
        with pytest.raises(WeightsMismatchError, match=named):
            load_weights(Block(), self.faulty())

    def test_leave_the_network_alone(self):
        model = Block()
        before = copy_of(model)
        with pytest.raises(InputError):
            load_weights(model, self.faulty())
        assert unchanged(model, before)

    def test_are_reported_if_not_strict(self):
        report = load_weights(Block(), self.faulty(), strict=False)
        assert report.missing == ("layer1.0.bn1.bias",)
        assert report.unexpected == ("extra.weight",)
        assert [name.split()[0] for name in report.mismatched] == ["conv1.weight"]
        assert not report.fits

    def test_what_fits_is_loaded_if_not_strict(self):
        model, weights = Block(), self.faulty()
        own = model.conv1.weight.detach().clone()
        load_weights(model, weights, strict=False)
        assert torch.equal(model.fc.weight, weights["fc.weight"])
        assert torch.equal(model.conv1.weight, own)

    def test_nothing_fits(self):
        with pytest.raises(
            WeightsMismatchError, match=r"do not fit Linear: 2 missing: weight, bias; 1 unexpected: x"
        ):
            load_weights(nn.Linear(2, 2), {"x": torch.zeros(1)}, strict=False)

    def test_ordinary_weight_of_another_shape(self):
        weights = plain_block()
        weights["layer1.0.conv2.weight"] = torch.zeros(8, 8, 1, 1)
        with pytest.raises(WeightsMismatchError) as caught:
            load_weights(Block(), weights)
        report = caught.value.report
        shapes = "(8, 8, 1, 1) in the file, (8, 8, 3, 3) in the network"
        assert report.mismatched == (f"layer1.0.conv2.weight ({shapes})",)
        assert not report.missing
        assert not report.unexpected

    def test_long_lists_are_cut_in_the_message_only(self):
        with pytest.raises(WeightsMismatchError, match=r"30 unexpected: x0, .*, and 20 more") as caught:
            load_weights(nn.Linear(2, 2), {f"x{index}": torch.zeros(1) for index in range(30)})
        assert len(caught.value.report.unexpected) == 30

    def test_empty_dict(self):
        with pytest.raises(InputError, match="state dict: holds no weights by name, but nothing at all"):
            load_weights(Block(), {})

    def test_unknown_layout(self):
        with pytest.raises(InputError, match="spectral_layout='planar' must be"):
            load_weights(Block(), Block().state_dict(), spectral_layout="planar")


class TestReport:
    def test_text(self):
        report = load_weights(Block(), TestFaults().faulty(), strict=False)
        first, *rest = str(report).splitlines()
        assert first == "state dict: weights of ffconv, 42 entries loaded"
        assert rest == [report.faults]


class TestReleasedNames:
    """What needs no reference data: each rule once, on one block."""

    def weights(self):
        spectral = "layer1.0.conv2.ffc.convg2g."
        shapes = {"conv1.weight": [16, 3, 3, 3], "fc.weight": [3, 16], "fc.bias": [3]}
        for branch in "lg":
            shapes[f"layer1.0.conv1.ffc.convl2{branch}.weight"] = [8, 16, 3, 3]
            shapes[f"layer1.0.downsample.ffc.convl2{branch}.weight"] = [8, 16, 1, 1]
        for path in ("l2l", "l2g", "g2l"):
            shapes[f"layer1.0.conv2.ffc.conv{path}.weight"] = [8, 8, 3, 3]
        shapes[f"{spectral}conv1.0.weight"] = [4, 8, 1, 1]
        shapes[f"{spectral}fu.conv_layer.weight"] = [8, 8, 1, 1]
        shapes[f"{spectral}lfu.conv_layer.weight"] = [8, 8, 1, 1]
        shapes[f"{spectral}conv2.weight"] = [8, 4, 1, 1]
        norms = {
            f"layer1.0.{name}.bn_{branch}": 8 for name in ("conv1", "conv2", "downsample") for branch in "lg"
        }
        norms |= {f"{spectral}conv1.1": 4, f"{spectral}fu.bn": 8, f"{spectral}lfu.bn": 8}
        for name, channels in norms.items():
            shapes |= {f"{name}.{value}": [channels] for value in NORM}
            shapes[f"{name}.num_batches_tracked"] = []
        return released.random_weights(shapes, torch.float64)

    def test_outputs(self):
        weights, model = self.weights(), Block(channels=16).double().eval()
        load_weights(model, {f"module.{name}": tensor for name, tensor in weights.items()})
        images = torch.randn(2, 3, 8, 10, dtype=torch.float64)
        x = torch.conv2d(images, weights["conv1.weight"])
        local, everywhere = released.block(
            released.under(weights, "layer1.0."), (x, None), stride=1, groups=1
        )
        features = torch.cat([local, everywhere], dim=1).mean((2, 3))
        expected = features @ weights["fc.weight"].T + weights["fc.bias"]
        torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-12)

    def test_every_entry_is_loaded(self):
        model = Block(channels=16)
        assert set(load_weights(model, self.weights()).loaded) == set(model.state_dict())

    def test_biases_of_paths_into_one_branch_add_up(self):
        shapes = {
            f"conv{path}.{name}": [4, 4, 1, 1] if name == "weight" else [4]
            for path in ("l2l", "l2g", "g2l")
            for name in ("weight", "bias")
        }
        weights, ffc = released.random_weights(shapes), FFC2d(8, 8, 1, ratio=0.5)
        load_weights(ffc, weights, strict=False)
        local = weights["convl2l.bias"] + weights["convg2l.bias"]
        assert torch.equal(ffc.bias.detach(), torch.cat([local, weights["convl2g.bias"]]))

    def test_branches_that_do_not_join(self):
        weights = {"convl2l.bias": torch.zeros(4), "convg2l.bias": torch.zeros(3)}
        with pytest.raises(InputError, match="state dict: "):
            load_weights(FFC2d(8, 8, 1, ratio=0.5), weights)

    def test_other_networks_keep_such_names(self):
        saved, model = nn.Sequential(), nn.Sequential()
        for network in (saved, model):
            network.add_module("head", nn.ModuleDict({"conv_layer": nn.Conv2d(2, 2, 1)}))
        load_weights(model, saved.state_dict())
        assert unchanged(model, saved.state_dict())

    def test_32_blocks_are_refused(self):
        weights = {f"layer3.{index}.conv1.ffc.convl2l.weight": torch.zeros(1) for index in range(32)}
        with pytest.raises(InputError, match="layer3 has 32 blocks: the released ResNeXt-101's slip"):
            load_weights(Block(), weights)


class TestStackedParts:
    def shapes(self, name, inputs, outputs):
        norm = {f"{name}bn.{value}": [2 * outputs] for value in NORM}
        return {f"{name}conv_layer.weight": [2 * outputs, 2 * inputs, 1, 1], **norm}

    def test_fourier_unit(self):
        weights = released.random_weights(self.shapes("", 3, 5), torch.float64)
        unit, x = FourierUnit(3, 5).double().eval(), torch.randn(2, 3, 6, 7, dtype=torch.float64)
        load_weights(unit, weights, spectral_layout="stacked")
        torch.testing.assert_close(
            unit(x), released.fourier_unit(weights, x, stacked=True), rtol=1e-12, atol=1e-12
        )

    def test_layouts_differ(self):
        weights = released.random_weights(self.shapes("", 3, 5), torch.float64)
        unit, x = FourierUnit(3, 5).double().eval(), torch.randn(2, 3, 6, 7, dtype=torch.float64)
        load_weights(unit, weights)
        assert not torch.allclose(
            unit(x), released.fourier_unit(weights, x, stacked=True), rtol=0.1, atol=0.1
        )

    def test_local_fourier_unit(self):
        shapes = {"conv1.0.weight": [4, 8, 1, 1], "conv2.weight": [8, 4, 1, 1]}
        shapes |= {f"conv1.1.{value}": [4] for value in NORM}
        shapes |= self.shapes("fu.", 4, 4) | self.shapes("lfu.", 4, 4)
        weights = released.random_weights(shapes, torch.float64)
        transform, x = SpectralTransform(8, 8).double().eval(), torch.randn(2, 8, 6, 8, dtype=torch.float64)
        load_weights(transform, weights, spectral_layout="stacked")
        expected = released.spectral_transform(weights, x, stacked=True)
        torch.testing.assert_close(transform(x), expected, rtol=1e-12, atol=1e-12)

    def test_groups_are_refused(self):
        with pytest.raises(InputError, match="groups=2: stacked groups part real from imaginary"):
            load_weights(
                FourierUnit(4, 4, groups=2), FourierUnit(4, 4, 2).state_dict(), spectral_layout="stacked"
            )
