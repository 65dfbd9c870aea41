"""The one predicate that decides when plain torch operations must run instead of operators and kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def must_decompose() -> str | None:
    """Return the reason why :mod:`ffconv.functional` must run, or None.

    Exporters need operations that another program has. ``torch.func`` and forward-mode differentiation have no
    rule for our operators, and a missing forward derivative is a zero without a word. Dispatch modes count or
    rewrite aten operations.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return "a graph is exported"
    if torch.compiler.is_dynamo_compiling():  # dynamo cannot trace the calls below
        return None
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform is active"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    if torch._C._len_torch_dispatch_stack() > 0:
        return "a dispatch mode is active"
    return None


def is_plain_tensor(x: object) -> bool:
    """Return True for a tensor or parameter itself, False for subclasses and for proxies of tracers."""
    return type(x) is Tensor or type(x) is torch.nn.Parameter
