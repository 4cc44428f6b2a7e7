"""What of a model is pruned, with its masks; refuses proposals that break a rule of the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.sizes import applied_sizes
from ssm_prune.errors import ProposalError, PruneError
from ssm_prune.masks import MaskStore
from ssm_prune.options import PruneOptions
from ssm_prune.policy import decide
from ssm_prune.pruner import Proposal
from ssm_prune.select import target_count
from ssm_prune.unit_masks import UnitMasks, check_units


class Targets:
    """The weights or the units of one model that may be removed.

    Args:
        hook: of `PrunePlugins`; asked for the policy and for adapters.

    Attributes:
        verdicts: parameter name -> whether single weights of it may be pruned, and why (not).
        units: the masks of the units; None where single weights are pruned.
        store: the masks of the parameters.
        limits: parameter name -> how many of its weights may be removed; empty with units.
    """

    def __init__(self, model: nn.Module, options: PruneOptions, hook: Any) -> None:
        kind = options.units
        self.verdicts = decide(model, hook.ssm_prune_policy, options.allow_unsafe)
        self.units = None if kind == "weights" else UnitMasks(model, kind, hook.ssm_prune_adapter)
        if self.units is None:
            names = {name for name, verdict in self.verdicts.items() if verdict.allow}
        else:
            names = self.units.masked_parameters()
        self.store = MaskStore({n: p.shape for n, p in model.named_parameters() if n in names})
        self._smaller = bool(applied_sizes(model))
        self.limits: dict[str, int] = {}
        if self.units is None:
            shapes = self.store.shapes
            self.limits = {n: self.verdicts[n].limit(s.numel()) for n, s in shapes.items()}

    @property
    def total(self) -> int:
        """How many weights, or units, there are."""
        return self.store.total if self.units is None else self.units.total

    @property
    def removed(self) -> int:
        """How many of them are masked."""
        return self.store.total_pruned if self.units is None else self.units.removed

    def require(self, sparsity: float) -> None:
        """Check that so much can be removed at all.

        Raises:
            PruneError: no; says what stands against it.
        """
        if self.units is None:
            self._require_weights(sparsity)
        # a resumed run may have had all of them taken out but one
        elif sparsity and not self.units.groups and not self._smaller:
            raise PruneError(
                f"the model has no {self.units.kind} that could be pruned: choose another "
                "--prune.units (weights, channels, states, heads, blocks), or install an adapter "
                "for its blocks"
            )

    def check(self, proposal: Proposal) -> None:
        """Check a proposal against the rules of the host.

        Raises:
            ProposalError: it breaks one; names the tensor or the module.
        """
        for name, mask in proposal.masks.items():
            self._check_mask(name, mask)
        for name, keep in proposal.units.items():
            self._check_units(name, keep)

    def replace(self, proposal: Proposal) -> None:
        """Take over the masks of a proposal that has been checked."""
        self.store.replace(proposal.masks)
        if self.units is not None:
            self.units.keep |= proposal.units
            self.store.replace(self.units.parameter_masks({}))

    def _check_units(self, name: str, keep: Tensor) -> None:
        if self.units is None or name not in self.units.groups:
            known = "weights are pruned" if self.units is None else f"no {self.units.kind} in it"
            raise ProposalError(f"proposed units of {name!r}, but {known}")
        problem = check_units(self.units.groups[name], name, keep)
        if problem is not None:
            raise ProposalError(problem)

    def _check_mask(self, name: str, mask: Tensor) -> None:
        if self.units is not None:
            raise ProposalError(
                f"proposed a mask of single weights for {name}, expected units: prune.units is "
                f"{self.units.kind}"
            )
        if name not in self.verdicts:
            raise ProposalError(f"proposed a mask for {name!r}, but there is no such parameter")
        if name not in self.store.shapes:
            raise ProposalError(f"{name} may not be pruned: {self.verdicts[name].reason}")
        shape = self.store.shapes[name]
        if mask.dtype != torch.bool or mask.shape != shape:
            raise ProposalError(
                f"the mask of {name} is {mask.dtype} {tuple(mask.shape)}, expected torch.bool "
                f"{tuple(shape)}, True where kept"
            )
        removed = mask.numel() - int(mask.sum())
        if removed > self.limits[name]:
            raise ProposalError(
                f"the mask of {name} removes {removed} of {mask.numel()} weights, expected at most "
                f"{self.limits[name]}: {self.verdicts[name].reason}"
            )

    def _require_weights(self, sparsity: float) -> None:
        if sparsity and not self.limits:
            reasons = [f"{name} ({verdict.reason})" for name, verdict in self.verdicts.items()]
            raise PruneError(
                f"the model has nothing to prune: {', '.join(reasons[:4])}, ...; choose another "
                "model, or see --prune.allow_unsafe"
            )
        possible = sum(self.limits.values())
        if target_count(sparsity, self.store.total) > possible:
            shapes = self.store.shapes
            capped = [n for n, limit in self.limits.items() if limit < shapes[n].numel()]
            raise PruneError(
                f"prune.sparsity is {sparsity}, expected at most "
                f"{possible / self.store.total:.3f} for this model, because of "
                f"{', '.join(capped[:4])}{', ...' if len(capped) > 4 else ''} "
                f"({self.verdicts[capped[0]].reason}): ask for less, or see --prune.allow_unsafe"
            )
