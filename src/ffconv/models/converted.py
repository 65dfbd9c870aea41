"""Any network of timm's registry with Fast Fourier Convolutions, by one name of that registry.

timm.create_model("ffc_converted", network="regnety_008", ratio=0.25, lfu=True)

So a converted network has a name and arguments that rebuild it: in a recipe, on a command line, on a hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, get_pretrained_cfg, register_model
from torch import nn

from ffconv.errors import InputError
from ffconv.surgery import convert

_NAME = "ffc_converted"
# timm looks this name up in the module of an entry point.
default_cfgs = generate_default_cfgs({f"{_NAME}.untrained": {}})


@register_model
def ffc_converted(
    pretrained: bool = False, *, network: str, pretrained_cfg: Any = None, **arguments: Any
) -> nn.Module:
    """``ffconv.convert(timm.create_model(network))``.

    Args:
        pretrained: load the weights that ``pretrained_cfg`` names; by itself this network has none.
        network: a name of timm's registry.
        pretrained_cfg: sizes and the like; by default the network's own.
        arguments: ``ratio``, ``lfu``, ``local_to_global``, ``global_to_local``, ``spectral_dims`` and
            ``rules`` are those of :func:`ffconv.convert`, rules a table whose pairs may be lists; the others
            are the network's.
    Raises:
        InputError: if timm has no such network.
    """
    if not timm.is_model(network):
        raise InputError(f"network={network!r} is no network timm knows")
    if not isinstance(pretrained_cfg, Mapping):
        own = get_pretrained_cfg(network)
        pretrained_cfg = {
            **(own.to_dict(remove_source=True) if own else {}),
            "architecture": _NAME,
            "tag": None,
        }
    return build_model_with_cfg(
        _convert, _NAME, pretrained, pretrained_cfg=dict(pretrained_cfg), network=network, **arguments
    )


_OF_CONVERSION = ("ratio", "lfu", "local_to_global", "global_to_local", "spectral_dims", "rules")


def _convert(network: str, **arguments: Any) -> nn.Module:
    options = {name: arguments.pop(name) for name in _OF_CONVERSION if name in arguments}
    if options.get("rules"):
        options["rules"] = {
            pattern: tuple(decision)
            if isinstance(decision, list)
            else decision  # JSON and YAML have no pairs
            for pattern, decision in options["rules"].items()
        }
    return convert(timm.create_model(network, **arguments), **options)
