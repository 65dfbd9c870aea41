"""LaMa's checkpoints: the generator's outputs are those of an independent transcription on pairs."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ffconv import load_weights
from ffconv.errors import InputError
from ffconv.interop.lama import load_lama
from ffconv.models import LamaGenerator
from lama import Lama, save_lightning
from released import Weights, under

OPTIONS = [
    pytest.param({}, id="big-lama"),
    pytest.param({"enable_lfu": True, "ngf": 16}, id="lfu"),
    pytest.param({"gated": True}, id="gated"),
    pytest.param({"spectral_pos_encoding": True}, id="spectral_pos_encoding"),
    pytest.param({"fft_norm": "backward"}, id="fft_norm backward"),
    pytest.param({"fft_norm": "forward"}, id="fft_norm forward"),
    pytest.param({"spatial_scale_factor": 0.5}, id="spatial_scale_factor"),
    pytest.param({"spatial_scale_factor": 0.7, "spectral_pos_encoding": True}, id="two options"),
    pytest.param({"ratio": 0.5, "n_downsampling": 2, "n_blocks": 3}, id="another size"),
    pytest.param({"ratio": 0.0}, id="no global channels"),
    pytest.param({"ratio": 0.3, "ngf": 6}, id="ratio that does not divide"),
]
UNSEEN = ("fft_norm", "spatial_scale_factor")  # options that leave no trace in the weights


def images(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(2, 4, 48, 64, dtype=dtype)


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("options", OPTIONS)
def test_checkpoint_gives_the_transcriptions_output(options: dict, tmp_path: Path):
    lama, x = Lama(**options), images()
    weights = lama.weights()
    arguments = {name: options[name] for name in UNSEEN if name in options}
    network = load_lama(save_lightning(weights, tmp_path / "best.ckpt"), arguments).double()
    load_weights(network, weights)  # once more, without the rounding of a float32 network
    with torch.no_grad():
        assert relative_difference(network(x), lama(weights, x)) < 1e-10


def test_in_float32_the_difference_is_below_1e_4(tmp_path: Path):
    lama, x = Lama(ngf=16, n_blocks=6), images(torch.float32)
    weights = lama.weights(torch.float32)
    network = load_lama(save_lightning(weights, tmp_path / "best.ckpt"))
    with torch.no_grad():
        assert relative_difference(network(x), lama(weights, x)) < 1e-5


@pytest.mark.parametrize("prefix", ["", "generator.", "module.generator."])
def test_safetensors_of_the_same(prefix: str, tmp_path: Path):
    weights = Lama().weights(torch.float32)
    save_file({prefix + name: tensor for name, tensor in weights.items()}, tmp_path / "lama.safetensors")
    loaded, other = load_lama(tmp_path / "lama.safetensors"), LamaGenerator(width=8, blocks=2)
    load_weights(other, weights)
    assert all(map(torch.equal, loaded.state_dict().values(), other.state_dict().values()))


def test_nothing_of_the_file_is_imported(tmp_path: Path):
    before = set(sys.modules)
    load_lama(save_lightning(Lama().weights(), tmp_path / "best.ckpt"))
    assert not any("absent" in name for name in set(sys.modules) - before)


def test_arguments_are_told_by_the_weights(tmp_path: Path):
    lama = Lama(ngf=4, n_downsampling=2, n_blocks=3, ratio=0.25, gated=True)
    network = load_lama(save_lightning(lama.weights(), tmp_path / "best.ckpt"))
    assert (len(network.down), len(network.blocks), network.multiple) == (2, 3, 4)
    assert network.stem[0].out_channels == 4


def test_every_entry_of_the_published_size_fits():
    published = Lama(ngf=64, n_blocks=18).weights(torch.float16)
    report = load_weights(LamaGenerator(), published)
    assert report.fits
    assert report.format == "LaMa"
    assert report.kept == ()


def test_a_generator_of_another_depth_is_refused():
    with pytest.raises(InputError, match=r"unexpected: blocks\.1"):
        load_weights(LamaGenerator(width=8, blocks=1), Lama().weights())


def test_weights_without_generator_keep_what_they_should_not_have():
    weights = Lama().weights() | {"tail.weight": torch.zeros(1)}
    with pytest.raises(InputError, match=r"1 unexpected: tail\.weight"):
        load_weights(LamaGenerator(width=8, blocks=2), weights)


def renamed(weights: Weights, before: str, after: str) -> Weights:
    return {re.sub(before, after, name): tensor for name, tensor in weights.items()}


BLOCK = r"^model\.5\."


@pytest.mark.parametrize(
    ("change", "option"),
    [
        (lambda w: w | {"model.5.conv1.ffc.convg2g.fu.se.fc.0.weight": torch.zeros(1, 2)}, "use_se"),
        (lambda w: renamed(w, BLOCK, "model.5.impl."), "spatial_transform_layers"),
        (lambda w: renamed(w, rf"{BLOCK}conv2\.", "model.5.conv2.impl."), "spatial_transform_layers"),
        (lambda w: w | renamed(under(w, "model.5."), "^", "model.16."), "out_ffc"),
        (lambda w: renamed(w, r"^model\.1\.ffc\.convl2l", "model.1.ffc.convl2g"), "init_conv_kwargs"),
        (lambda w: renamed(w, r"^model\.4\.ffc\.convl2l", "model.4.ffc.convg2l"), "downsample_conv_kwargs"),
    ],
)
def test_options_that_are_not_built_are_named(
    change: Callable[[Weights], Weights], option: str, tmp_path: Path
):
    path = save_lightning(change(Lama(n_blocks=1).weights()), tmp_path / "best.ckpt")
    with pytest.raises(InputError, match=rf"best\.ckpt: LaMa's generator is built here without .*{option}"):
        load_lama(path)


def test_lamas_network_without_fourier_convolutions_is_said_to_be_one(tmp_path: Path):
    torch.save({"model.4.conv_block.1.weight": torch.zeros(2, 2, 3, 3)}, tmp_path / "regular.ckpt")
    with pytest.raises(InputError, match="its networks without FFCs"):
        load_lama(tmp_path / "regular.ckpt")


def test_other_weights_are_refused_by_name(tmp_path: Path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"net\.pth: weights of .*, not of LaMa's generator"):
        load_lama(tmp_path / "net.pth")


def test_an_incomplete_file_says_what_it_lacks(tmp_path: Path):
    weights = {name: tensor for name, tensor in Lama().weights().items() if not name.startswith("model.18.")}
    torch.save(weights, tmp_path / "half.pth")
    with pytest.raises(InputError, match=r"lack head\.weight"):
        load_lama(tmp_path / "half.pth")
