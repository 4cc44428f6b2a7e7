"""Models of squares and of lines for `ssm-train bench`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssm_core import BenchmarkSpec, hookimpl
from ssm_core.errors import ConfigError


class Toy(nn.Module):
    """A linear map over the last axis."""

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 8:
            raise ConfigError(f"toy: size is {size}, expected at least 8")
        self.linear = nn.Linear(size, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y


def build(name: str, size: int) -> nn.Module:
    return Toy(size)


SQUARES = BenchmarkSpec(
    name="squares",
    help="toy_square and toy_baseline",
    models=lambda: {"toy_square": False, "toy_baseline": True},
    build=build,
    inputs=lambda model, batch, size: torch.randn(batch, size, size),
    loss=lambda y, x: y.float().square().mean(),
    size="side",
    size_label="side of a square",
    default_size=16,
    unit="squares",
    count=lambda batch, size: batch,
)

LINES = BenchmarkSpec(
    name="lines",
    help="toy_line",
    models=lambda: {"toy_line": False},
    build=build,
    inputs=lambda model, batch, size: torch.randn(batch, size),
    loss=lambda y, x: y.float().square().mean(),
    size="line_length",
    size_label="points of a line",
    default_size=64,
    unit="points",
    count=lambda batch, size: batch * size,
)


@hookimpl
def ssm_register_benchmarks() -> list[BenchmarkSpec]:
    return [SQUARES, LINES]
