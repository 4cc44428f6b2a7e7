"""How much a weight is worth, by name: what `--prune.score NAME` chooses from.

A plugin offers more through the hook `ssm_prune_scores`. The lowest scores are removed first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ssm_core.errors import UnknownNameError

if TYPE_CHECKING:
    from ssm_prune.context import PruneContext

#: (context, name of the parameter, the parameter) -> a score of its shape per weight
Score = Callable[["PruneContext", str, nn.Parameter], Tensor]


def magnitude(ctx: PruneContext, name: str, parameter: nn.Parameter) -> Tensor:
    """|w|: what is small changes the output least."""
    return parameter.abs()


def random(ctx: PruneContext, name: str, parameter: nn.Parameter) -> Tensor:
    """Uniform numbers from the run's generator, new at each call: the control of every score.

    Drawn on the CPU, so that they are the same on every device and process.
    """
    return torch.rand(parameter.shape, generator=ctx.rng)


SCORES: Mapping[str, Score] = {"magnitude": magnitude, "random": random}


def find_score(name: str, scores: Mapping[str, Score]) -> Score:
    """The score of that name.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    if name not in scores:
        raise UnknownNameError.of("prune.score", name, scores)
    return scores[name]
