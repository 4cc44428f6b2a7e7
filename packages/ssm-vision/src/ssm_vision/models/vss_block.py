"""The residual block of VMamba: a mixer over the pixels of a map and, if wanted, an MLP.

Source: Liu et al. 2024, arXiv:2401.10166, Figure 3 (with the gate, without an MLP: the first
release; without a gate, with an MLP: the later ones).
"""

from __future__ import annotations

import torch
from torch import nn

from ssm_core.block import MLP, DropPath
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.norm import LayerNorm
from ssm_vision.models.ss2d import ChannelLast

LINEAR_STD = 0.02


class VSSBlock(nn.Module):
    """x + drop(op(norm(x))), then x + drop(mlp(norm2(x))) if there is an MLP.

    Maps (b, y, x, d) in and out. Parameter names are those of the published checkpoints.
    """

    def __init__(
        self, d_model: int, op: nn.Module, mlp_hidden: int = 0, drop_path: float = 0.0
    ) -> None:
        """Wrap `op`, a mixer of maps (b, y, x, d).

        Args:
            mlp_hidden: hidden channels of the MLP; 0 means no MLP.
            drop_path: probability of dropping a branch of an image in training.
        """
        super().__init__()
        self.norm = LayerNorm(d_model)
        self.op = op
        self.norm2 = LayerNorm(d_model) if mlp_hidden else None
        self.mlp = MLP(d_model, mlp_hidden) if mlp_hidden else None
        self.drop_path = DropPath(drop_path)

    @property
    def branches(self) -> tuple[str, ...]:
        """The parts that add to the residual stream; without them the block is the identity."""
        return (within("op", self.op), "mlp")

    def forward(self, x: ChannelLast) -> ChannelLast:
        """Add both branches to x (b, y, x, d)."""
        x = x + self.drop_path(self.op(self.norm(x)))
        if self.mlp is not None and self.norm2 is not None:
            x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


class RowByRow(nn.Module):
    """Any sequence layer as a mixer of maps (b, y, x, d): the rows laid end to end."""

    def __init__(self, layer: SequenceLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: ChannelLast) -> ChannelLast:
        return self.layer(x.flatten(1, 2)).unflatten(1, x.shape[1:3])


def within(name: str, mixer: nn.Module) -> str:
    """The name of what mixes in a mixer called `name`."""
    return f"{name}.layer" if isinstance(mixer, RowByRow) else name


@torch.no_grad()
def init_linear_maps(module: nn.Module) -> None:
    """Give every `nn.Linear` in `module` weights of standard deviation 0.02 and biases of 0.

    What SS2D holds beside its Linear modules (projections to the scan, step sizes) stays, and so
    does all of another sequence layer: its step sizes may be the bias of a Linear.
    """
    if isinstance(module, RowByRow):
        return
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=LINEAR_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for part in module.children():
        init_linear_maps(part)
