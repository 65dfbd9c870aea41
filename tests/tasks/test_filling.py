"""Inpainting networks on images of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffconv.errors import InputError
from ffconv.models import LamaGenerator
from ffconv.tasks.filling import Refinement, fill, load_filler
from ffconv.training.checkpoint import save_weights
from lama import Lama, save_lightning


class Watched(nn.Module):
    """Draws what it is shown, white where that is the hole, and keeps what it was given."""

    def __init__(self, multiple: int = 8) -> None:
        super().__init__()
        self.multiple = multiple

    def forward(self, x: Tensor) -> Tensor:
        self.given = x
        return x[:, :3] + x[:, 3:]


def picture(height: int, width: int) -> tuple[Tensor, Tensor]:
    hole = torch.zeros(height, width, dtype=torch.bool)
    hole[height // 4 : height // 2 + 1, width // 3 : width // 2 + 1] = True
    return torch.rand(3, height, width), hole


@pytest.mark.parametrize("size", [(16, 24), (17, 31), (1, 1), (3, 40), (5, 7)])
def test_known_pixels_are_kept_and_the_hole_is_drawn(size: tuple[int, int]):
    image, hole = picture(*size)
    filled = fill(Watched(), image, hole)
    assert torch.equal(filled[:, ~hole], image[:, ~hole])
    assert bool((filled[:, hole] == 1).all())


@pytest.mark.parametrize("size", [(17, 31), (1, 1), (3, 40), (20, 9)])
def test_sides_are_mirrored_to_multiples_as_numpy_does(size: tuple[int, int]):
    image, hole = picture(*size)
    network = Watched()
    fill(network, image, hole)
    pads = [max(16, -(-side // 8) * 8) - side for side in size]
    expected = np.pad(image.numpy(), ((0, 0), (0, pads[0]), (0, pads[1])), mode="symmetric")
    mask = np.pad(hole.numpy(), ((0, pads[0]), (0, pads[1])), mode="symmetric")
    assert np.array_equal(network.given[0, :3].numpy(), expected * ~mask)
    assert np.array_equal(network.given[0, 3].numpy() > 0, mask)


def test_any_size_passes_the_generator():
    network = LamaGenerator(width=4, blocks=1).eval()
    image, hole = picture(13, 21)
    assert fill(network, image, hole).shape == image.shape


def test_above_the_bound_the_network_sees_less():
    image, hole = picture(60, 80)
    network = Watched()
    filled = fill(network, image, hole, max_pixels=1200)
    assert network.given.shape[-2:] == (32, 40)  # 30 x 40, padded
    assert torch.equal(filled[:, ~hole], image[:, ~hole])


def test_below_the_bound_nothing_is_scaled():
    image, hole = picture(16, 16)
    network = Watched()
    fill(network, image, hole, max_pixels=256)
    assert network.given.shape[-2:] == (16, 16)


def test_scaled_down_nothing_of_the_hole_is_shown():
    image, hole = picture(61, 83)
    network, other = Watched(), Watched()
    fill(network, image, hole, max_pixels=1000)
    fill(other, torch.where(hole, torch.rand_like(image), image), hole, max_pixels=1000)
    assert torch.equal(network.given, other.given)


def test_a_smooth_image_is_filled_smoothly_above_the_bound():
    class Means(Watched):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full_like(x[:, :3], 0.25)

    image, hole = picture(64, 64)
    filled = fill(Means(), image, hole, max_pixels=400)
    torch.testing.assert_close(filled[:, hole], torch.full_like(filled[:, hole], 0.25))


def test_lamas_checkpoint_is_read(tmp_path: Path):
    path = save_lightning(Lama(fft_norm="forward").weights(torch.float32), tmp_path / "best.ckpt")
    network = load_filler(path, {"fft_norm": "forward"})
    assert isinstance(network, LamaGenerator)
    assert network.blocks[0].conv1.spectral.fu.options.fft_norm == "forward"


def test_our_checkpoint_is_read(tmp_path: Path):
    arguments = {"width": 4, "downsamplings": 1, "blocks": 1}
    network = LamaGenerator(**arguments)
    metadata = {
        "task": "inpainting",
        "model": {"name": "lama_generator", "arguments": arguments},
        "data": {"transform": {"train_size": 32, "eval_size": 32}},
        "masks": {},
        "metrics": {},
    }
    save_weights(tmp_path / "best.safetensors", network.state_dict(), metadata)
    loaded = load_filler(tmp_path / "best.safetensors")
    assert all(map(torch.equal, loaded.state_dict().values(), network.state_dict().values()))
    with pytest.raises(InputError, match="leave out --arguments"):
        load_filler(tmp_path / "best.safetensors", {"fft_norm": "forward"})


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"best\.ckpt: no such file"):
        load_filler(tmp_path / "best.ckpt")


def small_generator() -> LamaGenerator:
    torch.manual_seed(0)
    return LamaGenerator(width=4, downsamplings=2, blocks=2).eval()


def test_encoding_and_decoding_are_the_network():
    network, x = small_generator(), torch.rand(1, 4, 32, 40)
    with torch.no_grad():
        assert torch.equal(network.decode(network.encode(x)), network(x))


def test_checkpointed_decoding_gives_the_same_values_and_gradients():
    network = small_generator()
    features = network.encode(torch.rand(1, 4, 32, 40)).detach().requires_grad_()
    outputs = [network.decode(features, checkpointing=flag) for flag in (False, True)]
    torch.testing.assert_close(*outputs)
    gradients = [torch.autograd.grad(y.square().sum(), features)[0] for y in outputs]
    torch.testing.assert_close(*gradients)


def test_refinement_makes_the_fine_level_agree_with_the_coarse_one():
    network = small_generator()
    image, hole = picture(64, 96)
    refinement = Refinement(steps=30, lr=0.1, min_side=32)
    coarse_image, coarse_hole = F.avg_pool2d(image, 2), F.max_pool2d(hole[None].float(), 2)[0] > 0
    coarse = fill(network, coarse_image, coarse_hole)
    inside = F.avg_pool2d(hole[None].float(), 2)[0] == 1

    def distance(filled: Tensor) -> float:
        shrunk = F.interpolate(filled[None], (32, 48), mode="bilinear", antialias=True)[0]
        return (shrunk - coarse)[:, inside].abs().mean().item()

    plain, refined = fill(network, image, hole), fill(network, image, hole, refinement=refinement)
    assert distance(refined) < 0.7 * distance(plain)
    assert torch.equal(refined[:, ~hole], image[:, ~hole])


def test_refinement_of_one_level_is_the_plain_filling():
    network = small_generator()
    image, hole = picture(40, 60)
    plain, refined = (fill(network, image, hole, refinement=r) for r in (None, Refinement(min_side=21)))
    assert torch.equal(plain, refined)


def test_refinement_leaves_the_network_as_it_was():
    network = small_generator()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fill(network, *picture(32, 32), refinement=Refinement(steps=2, min_side=16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())


def test_a_thin_hole_has_nothing_to_agree_on():
    network = small_generator()
    image, hole = torch.rand(3, 32, 32), torch.zeros(32, 32, dtype=torch.bool)
    hole[7] = True
    refined = fill(network, image, hole, refinement=Refinement(steps=2, min_side=16))
    assert torch.equal(refined, fill(network, image, hole))


def test_refinement_stays_below_its_own_bound():
    image, hole = picture(64, 64)
    sizes = []
    network = small_generator()
    network.stem.register_forward_pre_hook(lambda module, x: sizes.append(tuple(x[0].shape[-2:])))
    fill(network, image, hole, max_pixels=4096, refinement=Refinement(steps=1, min_side=16, max_pixels=1024))
    assert sizes == [(16, 16), (32, 32)]


@pytest.mark.parametrize(
    ("values", "message"),
    [({"steps": 0}, "steps=0"), ({"lr": 0.0}, r"lr=0\.0"), ({"min_side": 0}, "min_side=0")],
)
def test_refinement_refuses_what_is_out_of_range(values: dict, message: str):
    with pytest.raises(InputError, match=message):
        Refinement(**values)


def test_refinement_needs_lamas_generator():
    with pytest.raises(InputError, match="features of LaMa's generator; Watched has none"):
        fill(Watched(), *picture(32, 32), refinement=Refinement())
