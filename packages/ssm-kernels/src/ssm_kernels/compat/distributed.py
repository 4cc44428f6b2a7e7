"""mamba_ssm.distributed: tensor parallelism, which the stand-ins can be imported with but lack.

Copies of the original's modules import these names and use them only with a process group.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor, nn


class _ParallelLinear(nn.Linear):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        process_group: object,
        bias: bool = True,
        sequence_parallel: bool = True,
        multiple_of: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _refuse(type(self).__name__)


class ColumnParallelLinear(_ParallelLinear):
    """Not supported: the constructor raises NotImplementedError."""


class RowParallelLinear(_ParallelLinear):
    """Not supported: the constructor raises NotImplementedError."""


def all_reduce(input_: Tensor, process_group: object) -> NoReturn:
    """Not supported: raises NotImplementedError."""
    _refuse("all_reduce")


def reduce_scatter(input_: Tensor, process_group: object) -> NoReturn:
    """Not supported: raises NotImplementedError."""
    _refuse("reduce_scatter")


def _refuse(name: str) -> NoReturn:
    raise NotImplementedError(
        f"{name}: ssm_kernels.compat has no tensor parallelism; pass process_group=None, and split "
        "the batch instead (DistributedDataParallel)"
    )
