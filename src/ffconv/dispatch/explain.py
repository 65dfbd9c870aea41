"""What runs each FFC of a network, and why each faster implementation does not."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from ffconv.dispatch import layers, table
from ffconv.dispatch.fft_backend import current_fft_backend


class Explanation(NamedTuple):
    """One layer's implementation.

    Args:
        name: Of the layer in the network.
        operator: "ffc" where the layer is one operator, "spectral_transform" where only its Spectral Transform is,
            "parts" where module after module runs.
        implementation: Name of the table's row that runs the operator.
        reasons: For each faster implementation its name and why it does not run.
    """

    name: str
    operator: str
    implementation: str
    reasons: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        why = "; ".join(f"{name}: {reason}" for name, reason in self.reasons)
        runs = f"{self.implementation} ({self.operator})"
        return f"{self.name or '(the network)'}: {runs}" + (f"   [{why}]" if why else "")


class Explanations(list[Explanation]):
    """Explanations of a network's layers; prints one line a layer."""

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no FFC ran"


def explain(model: nn.Module, *example: Any) -> Explanations:
    """Run a network once and return, for each FFC, its implementation and why each faster one does not run.

    The answer holds for the network's present mode, for inputs of this size, device and dtype, and for gradients if
    they are enabled.

    Args:
        model: A network with ``FFC1d``, ``FFC2d`` or ``FFC3d`` layers.
        example: Arguments of a call.
    Example:
        >>> import torch
        >>> from ffconv import FFC2d
        >>> explain(FFC2d(16, 16, 3, groups=2, ratio=0.5), torch.zeros(1, 16, 8, 8))[0].reasons
        (('ffc', 'groups=2: each path has convolutions of its own'),)
    """
    found: dict[str, Explanation] = {}

    def watch(name: str, module: nn.Module) -> Any:
        def record(_: nn.Module, args: tuple[Any, ...]) -> None:
            inputs[name] = args[0]

        return module.register_forward_pre_hook(record)

    inputs: dict[str, Tensor] = {}
    ffcs = {name: module for name, module in model.named_modules() if hasattr(module, "is_ffc")}
    handles = [watch(name, module) for name, module in ffcs.items()]
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        model(*example)
    finally:
        for handle in handles:
            handle.remove()
        for name, buffer in model.named_buffers():  # a run in training mode moves the norms' statistics
            if name in state:
                buffer.data.copy_(state[name])
    for name, x in inputs.items():
        found[name] = _explained(name, ffcs[name], x)
    return Explanations(found.values())


def _explained(name: str, layer: Any, x: Tensor) -> Explanation:
    reasons: list[tuple[str, str]] = []
    call = layers.fused_ffc_call(layer, x) if hasattr(layer, "packed") else layers.ffc_call(layer, x)
    row = _row("ffc", call, reasons)
    if row is not None:
        return Explanation(name, "ffc", row, tuple(reasons))
    if getattr(layer, "spectral", None) is not None:
        inner = layers.spectral_call(layer.spectral, x[:, layer.in_local :], layer.geometry)
        row = _row("spectral_transform", inner, reasons)
        if row is not None:
            return Explanation(name, "spectral_transform", row, tuple(reasons))
    return Explanation(name, "parts", "torch", tuple(reasons))


def _row(operator: str, call: Any, reasons: list[tuple[str, str]]) -> str | None:
    """Return the row that runs a call, or None where its parts run; append why each faster row does not."""
    if isinstance(call, str):
        reasons.append((operator, call))
        return None
    for row in table.TABLE[operator]:
        reason = table.reason_against(row, call[0], current_fft_backend())
        if reason is None:
            return row.name if row.run is not None else None
        if not row.by_name_only:
            reasons.append((f"{operator}/{row.name}", reason))
    return None
