"""What is timed: shapes and random inputs of the scan and of the convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Shape(NamedTuple):
    """Sizes of one scan or convolution: batch, channels, steps, states per channel."""

    b: int
    d: int
    l: int
    n: int = 16

    @property
    def elements(self) -> int:
        """Numbers in u, and outputs of the convolution."""
        return self.b * self.d * self.l

    @property
    def state_steps(self) -> int:
        """Updates of one state of one channel: the unit of work of the scan."""
        return self.elements * self.n


SHAPES = {
    "A": Shape(64, 128, 49),  # MNIST in patches
    "B": Shape(128, 512, 64),  # small images
    "C": Shape(32, 512, 256),  # characters
    "D": Shape(8, 384, 197),  # Vim tiny
    "E": Shape(1, 1536, 2048),  # a language model
    "F": Shape(1, 256, 16384),  # one long sequence
}
SMOKE_SHAPES = {name: Shape(2, 16 + 3 * i, 16 + i, 4) for i, name in enumerate(SHAPES)}
WIDTH = 4  # taps of the convolution


@dataclass
class Subject:
    """One implementation with its inputs, ready to run."""

    name: str
    call: Callable[[], Tensor]
    leaves: tuple[Tensor, ...]
    grad_y: Tensor


class ScanInputs(NamedTuple):
    """u, delta (b, l, d), A (d, n), B, C (b, l, n), D (d,); or channels first: (b, d or n, l)."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor


def scan_inputs(shape: Shape) -> ScanInputs:
    """Random leaves in float32: step sizes up to 0.1, A = -1 .. -n as Mamba starts."""
    b, d, l, n = shape
    return _leaves(
        torch.randn(b, l, d),
        torch.rand(b, l, d) * 0.1,
        -torch.arange(1.0, n + 1).repeat(d, 1),
        torch.randn(b, l, n),
        torch.randn(b, l, n),
        torch.ones(d),
    )


def channels_first(inputs: ScanInputs) -> ScanInputs:
    """The same numbers as contiguous leaves in the layout (b, d, l)."""
    u, delta, A, B, C, D = (x.detach() for x in inputs)
    turned = [x.transpose(1, 2).contiguous() for x in (u, delta, B, C)]
    return _leaves(turned[0], turned[1], A.clone(), turned[2], turned[3], D.clone())


def shortened(inputs: ScanInputs, l: int) -> ScanInputs:
    """The first l steps as leaves of their own, layout (b, l, d)."""
    u, delta, A, B, C, D = (x.detach() for x in inputs)
    return _leaves(*(x.clone() for x in (u[:, :l], delta[:, :l], A, B[:, :l], C[:, :l], D)))


def _leaves(*tensors: Tensor) -> ScanInputs:
    return ScanInputs(*(x.requires_grad_() for x in tensors))
