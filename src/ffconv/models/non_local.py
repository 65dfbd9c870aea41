"""Non-local blocks: every position of a clip attends to every other."""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from ffconv.errors import require

Pairwise = Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"]


class NonLocalBlock(nn.Module):
    """Non-local block: x plus a weighted sum over all positions of the clip.

        z_i = x_i + bn(W_z sum_j a(i, j) g(x_j))

    with the weights a of one of four pairwise functions:

        embedded_gaussian    softmax over j of theta(x_i) . phi(x_j) / sqrt(d)
        gaussian             softmax over j of x_i . x_j
        dot_product          theta(x_i) . phi(x_j) / J
        concatenation        relu(w . [theta(x_i), phi(x_j)]) / J

    theta, phi and g are 1x1x1 convolutions to d channels, J is the number of positions j. The last norm's
    scale starts at zero, so that inserting a block changes nothing at first. No map of all pairs is kept for
    the first two, which run as ``scaled_dot_product_attention``, and none is made for the third, whose sum is
    (theta phi^T) g taken from the right; concatenation needs it.

    Reference: Wang, Girshick, Gupta, He: Non-local Neural Networks, CVPR 2018, Sec. 3; initialisation and
    softmax scale of its authors' code.
    Deviation: that code pools what phi and g read; here what they give is pooled, which fits the
    multiply-adds that Chi et al. print.

    Args:
        channels: C, positive.
        inner_channels: d; by default half of C.
        pairwise: the pairwise function.
        subsample: whether the positions j are those of a 1x2x2 max pooling, where rows and columns allow it.
    Shape:
        x (N, C, T, H, W) -> the same.
    Raises:
        ffconv.errors.InputError: if channels are not positive or the pairwise function is unknown.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int | None = None,
        pairwise: Pairwise = "embedded_gaussian",
        *,
        subsample: bool = True,
    ) -> None:
        super().__init__()
        inner = max(1, channels // 2) if inner_channels is None else inner_channels
        require(min(channels, inner) > 0, f"channels={channels} and inner_channels={inner} must be positive")
        require(pairwise in get_args(Pairwise), f"pairwise={pairwise!r} must be one of {get_args(Pairwise)}")
        self.pairwise = pairwise
        embeds = pairwise != "gaussian"
        self.theta = nn.Conv3d(channels, inner, 1) if embeds else nn.Identity()
        self.phi = nn.Conv3d(channels, inner, 1) if embeds else nn.Identity()
        self.g = nn.Conv3d(channels, inner, 1)
        self.pool = nn.MaxPool3d((1, 2, 2), ceil_mode=True) if subsample else nn.Identity()
        self.pair = nn.Linear(2 * inner, 1, bias=False) if pairwise == "concatenation" else None
        self.out = nn.Conv3d(inner, channels, 1)
        self.bn = nn.BatchNorm3d(channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of N(0, .01), biases zero, the norm's scale zero."""
        for module in self.modules():
            if isinstance(module, (nn.Conv3d, nn.Linear)):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.bn.reset_parameters()
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        query = _positions(self.theta(x))  # (N, I, d)
        key, value = _positions(self.pool(self.phi(x))), _positions(self.pool(self.g(x)))  # (N, J, d)
        y = self._attend(query, key, value).mT.unflatten(2, x.shape[2:])
        return x + self.bn(self.out(y))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.pairwise in ("embedded_gaussian", "gaussian"):
            scale = 1.0 if self.pairwise == "gaussian" else None
            query, key, value = (tensor.unsqueeze(1) for tensor in (query, key, value))  # one head
            return F.scaled_dot_product_attention(query, key, value, scale=scale).squeeze(1)
        if self.pair is None:
            return query @ (key.mT @ value) / key.shape[1]
        of_query, of_key = self.pair.weight.split(query.shape[2], dim=1)
        weights = F.relu(query @ of_query.mT + (key @ of_key.mT).mT)  # (N, I, J)
        return weights @ value / key.shape[1]


def _positions(x: Tensor) -> Tensor:
    """(N, C, T, H, W) -> (N, T H W, C)."""
    return x.flatten(2).mT.contiguous()  # else the attention that keeps no map of pairs is not chosen
