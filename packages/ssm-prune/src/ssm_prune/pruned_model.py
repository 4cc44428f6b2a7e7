"""A model and its optimizer with what is masked in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssm_prune.masks import MaskStore
from ssm_prune.policy import Verdict
from ssm_prune.targets import Targets
from ssm_prune.unit_masks import UnitMasks


class PrunedModel:
    """What one method masks, or has taken out, of a model.

    Attributes:
        model: in training.
        optimizer: has its parameters.
        targets: what may be pruned, with its masks.
        removals: what was taken out of the model, in order: step, number of units and sizes.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    targets: Targets

    def __init__(self) -> None:
        self.removals: list[dict[str, Any]] = []

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Parameter name -> whether single weights of it may be pruned, and why (not)."""
        return self.targets.verdicts

    @property
    def store(self) -> MaskStore:
        """The masks of the parameters."""
        return self.targets.store

    @property
    def units(self) -> UnitMasks | None:
        """The masks of the units; None where single weights are pruned."""
        return self.targets.units

    @property
    def achieved(self) -> float:
        """Fraction of the prunable weights, or units, that is removed."""
        if self.removals:
            last: dict[str, int] = self.removals[-1]
            return 1 - last["left"] / last["of"]
        return self.targets.removed / max(1, self.targets.total)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of everything that may have zeros under a mask."""
        for name, parameter in self.model.named_parameters():
            if name in self.store.shapes:
                yield name, parameter

    def prunable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of everything that a method has to score."""
        if self.units is None:
            yield from self.parameters()
            return
        scored = self.units.scored_parameters()
        for name, parameter in self.model.named_parameters():
            if name in scored:
                yield name, parameter

    def zero_gradients(self) -> None:
        """Set the gradients of removed weights to zero."""
        self.store.zero_gradients(self.parameters())

    def enforce(self, average: Mapping[str, Tensor] | None) -> None:
        """Set removed weights to +0, with their optimizer slots and in a moving average."""
        self.store.enforce(self.parameters(), self.optimizer)
        self.store.enforce_average(average or {})
