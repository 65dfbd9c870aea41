"""Who follows an operator's operations: exporters, transforms of functions, and modes.

They know torch's own operations only. A function with a backward pass of its own, or one of the compiled
library, has neither a rule for ``torch.func`` nor a forward derivative, and means nothing to another program.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def is_exporting() -> bool:
    """Whether a graph is being made that is to run without this package."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def is_transforming() -> bool:
    """Whether a transform of ``torch.func`` (grad, vmap, jvp and what is made of them) or forward-mode
    differentiation is at work."""
    if torch.compiler.is_dynamo_compiling():  # which cannot follow the question
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_watched() -> bool:
    """Whether a mode follows each operator that is dispatched, as torch's counter of operations does."""
    if torch.compiler.is_dynamo_compiling():
        return False
    return torch._C._len_torch_dispatch_stack() > 0


def need_operations() -> bool:
    """Whether torch's own operations are to be used, whatever else would be faster."""
    return is_exporting() or is_transforming()
