"""n:m sparsity: the pattern that the sparse tensor cores of GPUs take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_prune.context import PruneContext
from ssm_prune.errors import ProposalError
from ssm_prune.options import OneShotOptions
from ssm_prune.pruner import Proposal, Pruner


@dataclass(frozen=True)
class NMOptions(OneShotOptions):
    """Options of n:m. The sparsity follows from n, m and the tensors that can have the pattern.

    Args:
        n: how many weights are kept of every m consecutive inputs.
        m: length of a group.
    """

    n: int = 2
    m: int = 4
    sparsity: float = field(init=False, default=0.0)
    units: Literal["weights"] = field(init=False, default="weights")
    remove: bool = field(init=False, default=False)
    scope: Literal["layer"] = field(init=False, default="layer")

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise ConfigError(
                f"prune.n is {self.n} and prune.m is {self.m}, expected 0 < n < m, such as 2 and 4"
            )
        object.__setattr__(self, "sparsity", 1 - self.n / self.m)
        super().__post_init__()


class NM(Pruner):
    """At `begin`, keep of every m consecutive inputs of an output the n of the highest score.

    The pattern then stays (ASP, Mishra et al. 2021). Matrices (out, in) of prunable weights take
    part if m divides `in` and the policy lets 1 - n/m of the weights go; all others stay dense, and
    the report says why (`left_out_by_method`). The run's sparsity is therefore 1 - n/m of the
    tensors that take part, as a fraction of all prunable weights.

    Masked weights are multiplied like all others. On GPUs 2:4 in float16 and bfloat16 can be
    faster, through `torch.sparse.to_sparse_semi_structured`, for shapes (out, in) that are
    multiples of (32, 64) with CUTLASS or of (16, 16) with cuSPARSELt, where the other factor of the
    product is a multiple of 8. `x_proj` rarely is (Vim-Ti: 44 rows); fused layers that read
    the raw weight need their unfused path. So measure against the dense model before you use it.
    """

    def setup(self, ctx: PruneContext) -> None:
        self._score = ctx.scorer(self.options.score)
        n, m = self.options.n, self.options.m
        removed, total = 0, 0
        for name, weight in ctx.prunable():
            loses = weight.numel() // m * (m - n)
            reason = _misfit(weight, loses, ctx.limits[name], m)
            total += weight.numel()
            if reason:
                ctx.leave_out(name, reason)
            else:
                removed += loses
        if not removed:
            reasons = [f"{name} ({reason})" for name, reason in ctx.left_out.items()]
            raise ConfigError(
                f"the pattern {n}:{m} fits no prunable tensor: {', '.join(reasons[:4])}"
                f"{', ...' if len(reasons) > 4 else ''}; choose another prune.m or method"
            )
        ctx.fix_sparsity(removed / total)

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        if not ctx.due:
            return None
        scores = self._score()
        return Proposal(
            {
                name: n_m_mask(name, score, self.options.n, self.options.m)
                for name, score in scores.items()
                if name not in ctx.left_out
            }
        )


def n_m_mask(name: str, score: Tensor, n: int, m: int) -> Tensor:
    """Keep the n highest scores of every m consecutive inputs; of equal ones the last.

    Args:
        name: of the tensor, for the error.
        score: (out, in), m divides `in`.
    Returns:
        Boolean (out, in), True where kept, exactly n in each group.
    Raises:
        ProposalError: scores are NaN.
    """
    if bool(score.isnan().any()):
        raise ProposalError(f"the scores of {name} hold NaN, expected numbers")
    groups = score.reshape(-1, m)
    first = groups.argsort(dim=1, stable=True)[:, : m - n]
    return torch.ones_like(groups, dtype=torch.bool).scatter_(1, first, False).view(score.shape)


def _misfit(weight: Tensor, loses: int, limit: int, m: int) -> str:
    """Why a tensor cannot have the pattern; empty: it can."""
    if weight.ndim != 2:
        return f"shape {tuple(weight.shape)}, not a matrix (out, in)"
    if weight.shape[1] % m:
        return f"{weight.shape[1]} inputs, not a multiple of {m}"
    if loses > limit:
        return f"the pattern takes {loses} weights, the policy at most {limit}"
    return ""
