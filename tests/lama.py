"""LaMa's generator once more, as plain functions of its published state dict, on (local, global) pairs.

Written from the paper and the names and shapes of the checkpoints, without ``ffconv``; evaluation mode.
"""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from released import Pair, Weights, add, norm, random_weights, relu, under

NORM_ENTRIES = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Lama:
    """A published configuration; the field names are the ones of its configuration files."""

    ngf: int = 8
    n_downsampling: int = 3
    n_blocks: int = 2
    ratio: float = 0.75
    enable_lfu: bool = False
    gated: bool = False
    spectral_pos_encoding: bool = False
    fft_norm: str = "ortho"
    spatial_scale_factor: float | None = None

    @property
    def deepest(self) -> int:
        return self.ngf * 2**self.n_downsampling

    def weights(self, dtype: torch.dtype = torch.float64) -> Weights:
        """Random ones by the published names, random batch statistics among them."""
        shapes: dict[str, list[int]] = {}
        self._layer(shapes, "model.1.", (4, self.ngf), kernel=7, ratios=(0, 0))
        for step in range(self.n_downsampling):
            last = step == self.n_downsampling - 1
            channels = (self.ngf * 2**step, self.ngf * 2 ** (step + 1))
            self._layer(shapes, f"model.{2 + step}.", channels, ratios=(0, self.ratio if last else 0))
        first = 2 + self.n_downsampling
        for block in range(self.n_blocks):
            for conv in ("conv1", "conv2"):
                prefix = f"model.{first + block}.{conv}."
                self._layer(shapes, prefix, (self.deepest,) * 2, ratios=(self.ratio,) * 2, in_block=True)
        index = first + self.n_blocks + 1
        for step in range(self.n_downsampling, 0, -1):
            before, after = self.ngf * 2**step, self.ngf * 2 ** (step - 1)
            shapes |= {f"model.{index}.weight": [before, after, 3, 3], f"model.{index}.bias": [after]}
            self._norm(shapes, f"model.{index + 1}", after)
            index += 3
        shapes |= {f"model.{index + 1}.weight": [3, self.ngf, 7, 7], f"model.{index + 1}.bias": [3]}
        return random_weights(shapes, dtype)

    def _norm(self, shapes: dict[str, list[int]], name: str, channels: int) -> None:
        shapes |= {f"{name}.{entry}": [channels] for entry in NORM_ENTRIES}
        shapes[f"{name}.num_batches_tracked"] = []

    def _layer(
        self,
        shapes: dict[str, list[int]],
        prefix: str,
        channels: tuple[int, int],
        *,
        ratios: tuple[float, float],
        kernel: int = 3,
        in_block: bool = False,
    ) -> None:
        inputs = dict(zip("gl", split(channels[0], ratios[0]), strict=True))
        outputs = dict(zip("gl", split(channels[1], ratios[1]), strict=True))
        for a, b in ("ll", "lg", "gl"):
            if inputs[a] and outputs[b]:
                shapes[f"{prefix}ffc.conv{a}2{b}.weight"] = [outputs[b], inputs[a], kernel, kernel]
        if inputs["g"] and outputs["g"]:
            self._spectral(shapes, f"{prefix}ffc.convg2g.", inputs["g"], outputs["g"])
        if in_block and self.gated:
            shapes |= {f"{prefix}ffc.gate.weight": [2, channels[0], 1, 1], f"{prefix}ffc.gate.bias": [2]}
        for branch, count in outputs.items():
            if count:
                self._norm(shapes, f"{prefix}bn_{branch}", count)

    def _spectral(self, shapes: dict[str, list[int]], prefix: str, inputs: int, outputs: int) -> None:
        half = outputs // 2
        shapes[f"{prefix}conv1.0.weight"] = [half, inputs, 1, 1]
        shapes[f"{prefix}conv2.weight"] = [outputs, half, 1, 1]
        self._norm(shapes, f"{prefix}conv1.1", half)
        for unit in ("fu", "lfu") if self.enable_lfu else ("fu",):
            extra = 2 if self.spectral_pos_encoding and unit == "fu" else 0
            shapes[f"{prefix}{unit}.conv_layer.weight"] = [2 * half, 2 * half + extra, 1, 1]
            self._norm(shapes, f"{prefix}{unit}.bn", 2 * half)

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """What the generator makes of (N, 4, H, W), H and W multiples of 2 ** n_downsampling."""
        pair: Pair = (x, None)
        pair = self._run(under(weights, "model.1."), pair, padding=3)
        for step in range(self.n_downsampling):
            pair = self._run(under(weights, f"model.{2 + step}."), pair, stride=2)
        index = 2 + self.n_downsampling
        for _ in range(self.n_blocks):
            part = under(weights, f"model.{index}.")
            y = self._run(under(part, "conv2."), self._run(under(part, "conv1."), pair))
            pair = (add(pair[0], y[0]), add(pair[1], y[1]))
            index += 1
        x = torch.cat([branch for branch in pair if branch is not None], dim=1)
        for _ in range(self.n_downsampling):
            index += 1
            name = f"model.{index}"
            x = F.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 2, 1, 1)
            x = F.relu(norm(weights, f"model.{index + 1}", x))
            index += 2
        last = under(weights, f"model.{index + 2}.")
        return torch.sigmoid(F.conv2d(F.pad(x, [3] * 4, mode="reflect"), last["weight"], last["bias"]))

    def _run(self, weights: Weights, pair: Pair, *, stride: int = 1, padding: int = 1) -> Pair:
        """An FFC by reflection padding, with both norms and ReLUs."""
        part = under(weights, "ffc.")

        def path(name: str, x: Tensor | None) -> Tensor | None:
            if x is None or f"{name}.weight" not in part:
                return None
            return F.conv2d(F.pad(x, [padding] * 4, mode="reflect"), part[f"{name}.weight"], stride=stride)

        local, everywhere = pair
        g2l, l2g = path("convg2l", everywhere), path("convl2g", local)
        if "gate.weight" in part:
            both = torch.cat([local, everywhere], dim=1)
            gates = torch.sigmoid(F.conv2d(both, part["gate.weight"], part["gate.bias"]))
            g2l, l2g = g2l * gates[:, 0:1], l2g * gates[:, 1:2]
        g2g = None
        if "convg2g.conv2.weight" in part:
            g2g = self._spectral_transform(under(part, "convg2g."), everywhere)
        sums = (add(path("convl2l", local), g2l), add(l2g, g2g))
        normed = [None if x is None else norm(weights, f"bn_{b}", x) for x, b in zip(sums, "lg", strict=True)]
        return relu((normed[0], normed[1]))

    def _spectral_transform(self, weights: Weights, x: Tensor) -> Tensor:
        h = F.relu(norm(weights, "conv1.1", F.conv2d(x, weights["conv1.0.weight"])))
        total = h + self._fourier_unit(under(weights, "fu."), h)
        if self.enable_lfu:
            quarter = h[:, : h.shape[1] // 4]
            halves = torch.cat(quarter.chunk(2, dim=2), dim=1)
            quadrants = torch.cat(halves.chunk(2, dim=3), dim=1)
            plain = Lama()
            total = total + plain._fourier_unit(under(weights, "lfu."), quadrants).repeat(1, 1, 2, 2)
        return F.conv2d(total, weights["conv2.weight"])

    def _fourier_unit(self, weights: Weights, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        if self.spatial_scale_factor is not None:
            x = F.interpolate(x, scale_factor=self.spatial_scale_factor, mode="bilinear", align_corners=False)
        spectrum = torch.fft.rfft2(x, norm=self.fft_norm)
        channels = torch.stack([spectrum.real, spectrum.imag], dim=2).flatten(1, 2)
        if self.spectral_pos_encoding:
            rows, columns = (torch.linspace(0, 1, n, dtype=x.dtype) for n in spectrum.shape[-2:])
            grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
            channels = torch.cat([grid.expand(len(x), -1, -1, -1), channels], dim=1)
        y = F.relu(norm(weights, "bn", F.conv2d(channels, weights["conv_layer.weight"])))
        y = torch.fft.irfft2(torch.complex(y[:, 0::2], y[:, 1::2]), s=x.shape[-2:], norm=self.fft_norm)
        if self.spatial_scale_factor is not None:
            y = F.interpolate(y, size=size, mode="bilinear", align_corners=False)
        return y


def split(channels: int, ratio: float) -> tuple[int, int]:
    """Global and local channels."""
    return int(channels * ratio), channels - int(channels * ratio)


def save_lightning(weights: Weights, path: Path) -> Path:
    """The weights as LaMa's training saves them: among other networks' and a trainer's objects.

    The classes of those objects are gone afterwards, as on a machine without the trainer.
    """
    module = types.ModuleType("absent_lightning")
    source = """
class ModelCheckpoint: pass
class LearningRateMonitor:
    def __init__(self): self.state = object
class AttributeDict(dict): pass
class DictConfig:
    def __setstate__(self, state): raise AssertionError("a class of the file was run")
    def __getstate__(self): return {"_content": {"kind": "ffc_resnet"}}
"""
    exec(source, module.__dict__)
    sys.modules["absent_lightning"] = module
    others = {
        "discriminator.model0.0.weight": torch.randn(4, 3, 4, 4),
        "val_evaluator.scores.fid.model.weight": torch.randn(3),
        "loss_resnet_pl.impl.conv1.weight": torch.randn(2, 3, 7, 7),
    }
    content = {
        "epoch": 39,
        "pytorch-lightning_version": "1.2.9",
        "callbacks": {module.ModelCheckpoint: {"best_model_score": torch.tensor(0.5)}},
        "monitors": [module.LearningRateMonitor()],
        "hyper_parameters": module.AttributeDict(generator=module.DictConfig()),
        "state_dict": {f"generator.{name}": tensor for name, tensor in weights.items()} | others,
    }
    torch.save(content, path)
    del sys.modules["absent_lightning"]
    return path


def save_torchscript(lama: Lama, weights: Weights, path: Path) -> Path:
    """Trace the generator inside the modules around it, as the published TorchScript file has them."""

    class Traced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, tensor in weights.items():
                put(self, f"model.generator.{name}", tensor)

        def forward(self, image: Tensor, mask: Tensor) -> Tensor:
            own = under(dict(self.named_buffers()), "model.generator.")
            drawn = lama(own, torch.cat([image * (1 - mask), mask], dim=1))
            return 255 * (mask * drawn + (1 - mask) * image)

    example = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    torch.jit.trace(Traced(), example, check_trace=False).save(path)
    return path


def put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Register a tensor below a module by its dotted name."""
    first, _, rest = name.partition(".")
    if not rest:
        module.register_buffer(first, tensor)
        return
    if not hasattr(module, first):
        module.add_module(first, nn.Module())
    put(getattr(module, first), rest, tensor)
