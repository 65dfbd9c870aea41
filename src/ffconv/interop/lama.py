"""LaMa's generator from its weights alone: what they say of the network they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ffconv.errors import InputError, require
from ffconv.interop.formats import LAMA, recognise
from ffconv.interop.reading import find_weights, read_checkpoint
from ffconv.interop.weights import load_weights
from ffconv.models.registry import create_network


def load_lama(path: Path, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Build the generator of a published checkpoint, in evaluation mode.

    Args:
        path: a Lightning checkpoint such as ``best.ckpt``, a TorchScript file such as ``big-lama.pt``, or
            safetensors of the same.
        arguments: of the network, where the weights do not tell them: ``fft_norm`` and
            ``spatial_scale_factor``.
    Raises:
        InputError: if the file cannot be read safely, is not LaMa's, or does not fit.
    """
    tensors, _ = find_weights(read_checkpoint(path), source=str(path))
    known = recognise(tensors)
    regular = any(".conv_block." in name for name in tensors)
    hint = "; its networks without FFCs (lama-regular) are not built here" if regular else ""
    require(known is LAMA, f"{path}: weights of {known.name}, not of LaMa's generator{hint}")
    try:
        by_our_names = LAMA.convert(tensors)
    except (ValueError, RuntimeError) as error:  # RuntimeError: branches that do not join
        raise InputError(f"{path}: {error}") from error
    told = {**lama_arguments(by_our_names), **(arguments or {})}
    network = create_network("lama_generator", told)
    load_weights(network, path)
    return network.eval()


def lama_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of :class:`ffconv.models.LamaGenerator` that its weights, by our names, tell.

    Raises:
        InputError: if they are not all there.
    """
    steps, blocks = _count(tensors, "down"), _count(tensors, "blocks")
    in_chans = _entry(tensors, "stem.conv.weight", "stem.conv.weight_l2l").shape[1]
    width = len(_entry(tensors, "stem.bn.weight"))
    deepest = len(_entry(tensors, f"down.{steps - 1}.bn.weight"))
    outputs = tensors.get("blocks.0.conv1.spectral.conv2.weight")
    return {
        "in_chans": in_chans,
        "num_classes": len(_entry(tensors, "head.weight")),
        "width": width,
        "downsamplings": steps,
        "blocks": blocks,
        "ratio": 0.0 if outputs is None else _ratio(len(outputs), deepest),
        "lfu": any(".spectral.lfu." in name for name in tensors),
        "gated": any(".gate." in name for name in tensors),
        "max_channels": deepest if deepest < width * 2**steps else max(1024, deepest),
        "spectral_pos_encoding": any(name.endswith(".fu.bn.position") for name in tensors),
    }


def _ratio(part: int, channels: int) -> float:
    """The smallest ratio near the quotient by which ``int(channels * ratio)`` is the part."""
    ratio = part / channels
    return ratio if int(channels * ratio) == part else math.nextafter(ratio, 1)


def _count(tensors: Mapping[str, Tensor], layers: str) -> int:
    return len({name.split(".")[1] for name in tensors if name.startswith(f"{layers}.")})


def _entry(tensors: Mapping[str, Tensor], *names: str) -> Tensor:
    """The first of these entries that is there."""
    for name in names:
        if name in tensors:
            return tensors[name]
    raise InputError(f"LaMa's weights lack {names[0]}: the file is not complete")
