"""The paper's video networks, made of the image networks by inflation and entered in timm's registry.

    timm.create_model("ffc_i3d_resnet50_nl", num_classes=400, lfu=False)        after ``import ffconv``

Their names are ``[ffc_]c2d|i3d_resnet18|50|101[_nl]``; they take every argument of timm's ResNet beside those
of :class:`VideoResNet` and, with ``ffc_``, of :class:`ffconv.models.image.FFCResNet`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import product
from typing import Any, Literal

from timm.models import generate_default_cfgs
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from ffconv.errors import require
from ffconv.models.image import FFCResNet
from ffconv.models.non_local import NonLocalBlock
from ffconv.models.registry import PAPER_CFG, enter
from ffconv.nn import FFC3d
from ffconv.surgery.inflate import inflate_layers
from ffconv.surgery.inflate_layers import Temporal, TemporalPadding

Form = Literal["c2d", "i3d"]
_STAGES = ("layer1", "layer2", "layer3", "layer4")
# A stage so long gets a non-local block after every seventh of its blocks, others after every second.
_LONG_STAGE = 23


class _OnClips(nn.Module):
    """What makes a ResNet of timm's one of clips (N, 3, T, H, W)."""

    def __init__(
        self,
        *,
        form: Form = "c2d",
        non_local: bool = False,
        temporal_padding: TemporalPadding = "zeros",
        drop_rate: float = 0.5,
        zero_init_last: bool = False,
        **arguments: Any,
    ) -> None:
        require(form in ("c2d", "i3d"), f"form={form!r} must be 'c2d' or 'i3d'")
        super().__init__(drop_rate=drop_rate, zero_init_last=zero_init_last, **arguments)
        kernels = _kernels_in_time(self) if form == "i3d" else {}
        inflate_layers(self, kernels, temporal_padding)
        _initialise_anew(self.get_submodule(name) for name in kernels)
        # Without padding: pairs of frames are pairs of frames of the reversed clip, too.
        self.get_submodule("layer1").add_module("temporal_pool", nn.MaxPool3d((2, 1, 1)))
        if non_local:
            _insert_non_local_blocks(self)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """As timm's, for clips."""
        super().reset_classifier(num_classes, global_pool)  # pyright: ignore[reportAttributeAccessIssue]
        self.global_pool = inflate_layers(self.get_submodule("global_pool"), {})


class VideoResNet(_OnClips, ResNet):
    """timm's ResNet on clips: C2D, or I3D with kernels in time.

    C2D treats each frame alone, but for a max pooling of two frames after layer1: it gives a clip of an even
    number of frames and its reverse the same scores. I3D has a kernel of 5 frames in the stem and of 3 in the
    first convolution of every block of layer1, of every second block of layer2 and layer3, beginning with the
    first, and of layer4, beginning with the second. Non-local blocks stand after every second block of layer2
    and layer3, in a layer3 of 23 blocks after every seventh.

    Reference: Wang, Girshick, Gupta, He: Non-local Neural Networks, CVPR 2018, Sec. 4; Chi et al., NeurIPS
    2020, Sec. 4.2.
    Deviation: of basic blocks (ResNet-18), for which the paper has no counts, the first 3x3 is 3x3x3.

    Args:
        form: "c2d" or "i3d".
        non_local: whether there are non-local blocks.
        temporal_padding: of kernels in time: "zeros", or "replicate" the clip's first and last frame.
        drop_rate: dropout before the classifier.
        zero_init_last: whether the last norm of a block starts at zero.
        arguments: those of ``timm.models.resnet.ResNet``, block and layers among them.
    Shape:
        x (N, 3, T, H, W), T at least 2 -> (N, num_classes).
    Raises:
        ffconv.errors.InputError: if form is unknown, or a layer has no form for clips.
    """


class FFCVideoResNet(_OnClips, FFCResNet):
    """:class:`VideoResNet` with the arguments and the Fast Fourier Convolutions of
    :class:`ffconv.models.image.FFCResNet`."""


def _kernels_in_time(model: nn.Module) -> dict[str, Temporal]:
    stem = "conv1" if isinstance(model.get_submodule("conv1"), nn.Conv2d) else "conv1.0"
    kernels = {stem: Temporal(5)}
    for stage in _STAGES:
        first = 1 if stage == "layer4" else 0
        for block, _ in model.get_submodule(stage).named_children():
            if stage == "layer1" or int(block) % 2 == first:
                kernels[f"{stage}.{block}.conv1"] = Temporal(3)
    return kernels


def _initialise_anew(layers: Iterable[nn.Module]) -> None:
    """Weights that were repeated over time are their own reverse: they would not see the order of frames."""
    for layer in layers:
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, FFC3d):
            layer.reset_parameters()


def _insert_non_local_blocks(model: Any) -> None:
    channels = {info["module"]: info["num_chs"] for info in model.feature_info}
    for stage in ("layer2", "layer3"):
        blocks = list(model.get_submodule(stage).named_children())
        period = 7 if len(blocks) == _LONG_STAGE else 2
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for place, (name, block) in enumerate(blocks, start=1):
            layers[name] = block
            if place % period == 0:
                # Beside the numbers of the blocks, so that their weights keep the image network's names.
                layers[f"non_local{name}"] = NonLocalBlock(channels[stage])
        setattr(model, stage, nn.Sequential(layers))


_DEPTHS: dict[str, dict[str, Any]] = {
    "resnet18": {"block": BasicBlock, "layers": (2, 2, 2, 2)},
    "resnet50": {"block": Bottleneck, "layers": (3, 4, 6, 3)},
    "resnet101": {"block": Bottleneck, "layers": (3, 4, _LONG_STAGE, 3)},
}


def _networks() -> dict[str, tuple[type[_OnClips], dict[str, Any]]]:
    """Class and arguments of each name."""
    networks = {}
    for (prefix, kind), form, depth, (suffix, non_local) in product(
        (("", VideoResNet), ("ffc_", FFCVideoResNet)),
        ("c2d", "i3d"),
        _DEPTHS,
        (("", False), ("_nl", True)),
    ):
        arguments = {**_DEPTHS[depth], "form": form, "non_local": non_local}
        networks[f"{prefix}{form}_{depth}{suffix}"] = (kind, arguments)
    return networks


def _cfg() -> dict[str, Any]:
    return {
        **PAPER_CFG,
        "num_classes": 400,
        "input_size": (3, 224, 224),  # timm wants three; clips have frames between
        "pool_size": (7, 7),
        "first_conv": "conv1",
        "classifier": "fc",
    }


_NETWORKS = _networks()
# timm looks this name up in the module of an entry point.
default_cfgs = generate_default_cfgs({f"{name}.untrained": _cfg() for name in _NETWORKS})

for _name, (_kind, _defaults) in _NETWORKS.items():
    enter(_name, _kind, _defaults, module=__name__)
