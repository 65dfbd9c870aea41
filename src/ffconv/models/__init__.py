"""Networks of the paper. Importing this room enters them in timm's registry."""

from ffconv.models.converted import ffc_converted
from ffconv.models.image import FFCResNet
from ffconv.models.inpainting import LamaGenerator
from ffconv.models.non_local import NonLocalBlock
from ffconv.models.pose import SimpleBaseline
from ffconv.models.video import FFCVideoResNet, VideoResNet

__all__ = [
    "FFCResNet",
    "FFCVideoResNet",
    "LamaGenerator",
    "NonLocalBlock",
    "SimpleBaseline",
    "VideoResNet",
    "ffc_converted",
]
