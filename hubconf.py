"""Entry points of torch.hub: every network of ffconv by its name, and ``predictor``.

torch.hub.load(FOLDER, "ffc_resnet50", source="local", num_classes=10)
torch.hub.load(FOLDER, "predictor", "runs/ffc_resnet50", source="local")
"""

import sys as _sys
from pathlib import Path as _Path

import timm as _timm

dependencies = ["torch", "torchvision", "timm", "safetensors", "numpy", "PIL", "yaml", "rich"]

_SOURCES = str(_Path(__file__).resolve().parent / "src")

_sys.path.insert(0, _SOURCES)
try:
    import ffconv as _ffconv
finally:
    _sys.path.remove(_SOURCES)


def predictor(source, **options):
    """Load a trained network with its preprocessing, see ``ffconv.Predictor``."""
    return _ffconv.Predictor(source, **options)


def _network(name):
    def create(pretrained=False, **arguments):
        return _timm.create_model(name, pretrained=pretrained, **arguments)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (
        f'Make the network ``timm.create_model("{name}", **arguments)``, without trained weights.'
    )
    return create


for _name in _timm.list_models(["ffc_*", "c2d_*", "i3d_*", "pose*", "lama_*"]):
    globals()[_name] = _network(_name)
