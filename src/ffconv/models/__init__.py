"""Networks of the paper. Importing this room enters them in timm's registry."""

from ffconv.models.image import FFCResNet

__all__ = ["FFCResNet"]
