"""Following the tensors of a running network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ffconv.surgery.channels import IMAGE_SPAN, Flow, Span, follow, is_depthwise
from ffconv.surgery.trace import Convolution, Node, Trace


class Recorder(TorchDispatchMode):
    """Makes a node of each tensor that depends on the inputs; a convolution module is one operation."""

    def __init__(self) -> None:
        super().__init__()
        self._nodes: list[Node] = []
        self._opened: set[str] = set()
        self._weights: dict[int, str] = {}  # names of the watched convolutions, by the ids of their weights
        # By id; the tensors are kept alive, so that no id is used twice. Fake ones cost nothing.
        self._places: dict[int, tuple[int, Span]] = {}
        self._alive: list[Tensor] = []
        self._depth = 0

    def begin(self, arguments: Any) -> None:
        """Take the tensors among the network's arguments as its inputs."""
        for tensor in tensors_in(arguments):
            self._place(tensor, Node("input", Flow.MAKES, (), (), tensor.shape), IMAGE_SPAN)

    def watch(self, name: str, module: Convolution) -> None:
        """Record the module's calls as one operation."""
        depthwise = is_depthwise(module.groups, module.in_channels)

        def enter(*_: Any) -> None:
            self._depth += 1

        def leave(_: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Tensor) -> None:
            self._depth -= 1
            sources = tuple(self._indices((inputs, keywords)))
            flow = Flow.KEEPS if depthwise else Flow.MAKES
            kept = sources if depthwise else ()
            self._place(output, Node("convolution", flow, sources, kept, output.shape, name), IMAGE_SPAN)

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, with_kwargs=True)
        self._note_opening(name, module)

    def _note_opening(self, name: str, module: Convolution) -> None:
        """Note when the network reads the module's weight outside the module's own forward."""
        plain: Any = type(module)
        self._weights |= {id(weight): name for weight in module._parameters.values() if weight is not None}

        def read(watched: nn.Module, attribute: str) -> Any:
            if attribute == "weight" and self._depth == 0:
                self._opened.add(name)
            return plain.__getattr__(watched, attribute)

        module.__class__ = type(plain.__name__, (plain,), {"__getattr__": read})

    def trace(self, returned: Any) -> Trace:
        """All that was recorded, for a network that returned this."""
        return Trace(tuple(self._nodes), tuple(self._indices(returned)), frozenset(self._opened))

    def _indices(self, values: Any) -> list[int]:
        """Nodes of the tensors in a nested structure."""
        return [self._places[id(tensor)][0] for tensor in tensors_in(values) if id(tensor) in self._places]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        read = tensors_in((args, kwargs)) if self._depth == 0 else []
        # Also where the network keeps the weight itself, in a list say.
        self._opened |= {self._weights[id(tensor)] for tensor in read if id(tensor) in self._weights}
        sources = [tensor for tensor in read if id(tensor) in self._places]
        if sources:
            operation = func._schema.name.removeprefix("aten::").rstrip("_")
            for tensor in tensors_in(result):
                self._record(operation, args, sources, tensor)
                if func._schema.is_mutable and tensor._base is not None:
                    self._write_through(tensor, tensor._base)
        return result

    def _record(self, operation: str, arguments: Any, sources: list[Tensor], result: Tensor) -> None:
        indices = self._indices(sources)
        operands = [(tensor.shape, self._places[id(tensor)][1]) for tensor in sources]
        passage = follow(operation, arguments, operands, result.shape)
        kept = tuple(indices[position] for position in passage.kept)
        self._place(result, Node(operation, passage.flow, tuple(indices), kept, result.shape), passage.span)

    def _write_through(self, view: Tensor, base: Tensor) -> None:
        """What was written through a view, as in ``y[:, :c] = x``, is part of its base from now on."""
        if view.shape == base.shape:
            self._places[id(base)] = self._places[id(view)]
            return
        sources = tuple(self._indices([base, view]))
        self._place(base, Node("copy", Flow.MIXES, sources, (), base.shape), IMAGE_SPAN)

    def _place(self, tensor: Tensor, node: Node, span: Span) -> None:
        self._places[id(tensor)] = (len(self._nodes), span)
        self._alive.append(tensor)
        self._nodes.append(node)


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors of a nested structure."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
