"""What a method sees of a run: the prunable parameters, the clock, the masks and a generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.errors import ConfigError
from ssm_prune.distributed import Processes, whole
from ssm_prune.errors import ProposalError
from ssm_prune.options import PruneOptions
from ssm_prune.pruner import Proposal
from ssm_prune.schedules import Schedule
from ssm_prune.scores import SCORES, Score, find_score
from ssm_prune.select import (
    erk_counts,
    keep_globally,
    keep_per_layer,
    layer_counts,
    target_count,
)
from ssm_prune.steps import RunLength
from ssm_prune.targets import Targets
from ssm_prune.unit_masks import UnitMasks


class PruneContext:
    """Handed to every call of a `Pruner`.

    Attributes:
        step: optimizer steps completed.
        epoch: epochs completed.
        level: how often the run was rewound.
        targets: the host's masks; for reading.
        scores: what `--prune.score` chooses from.
        left_out: parameter name -> why the method removes nothing of it.
        schedule: begin, end, every, and the ramp.
        length: of the run, or of each of its levels.
        rng: CPU generator of this method, seeded by the run and saved with it; the same in all
            processes.
        processes: the processes of the run (`rank`, `size`).
    """

    def __init__(
        self,
        options: PruneOptions,
        schedule: Schedule,
        targets: Targets,
        length: RunLength,
        parameters: Callable[[], Iterator[tuple[str, nn.Parameter]]],
    ) -> None:
        self.step = self.epoch = self.level = 0
        self.length = length
        self.targets = targets
        self.scores: Mapping[str, Score] = SCORES
        self.left_out: dict[str, str] = {}
        self.schedule = schedule
        self.rng = torch.Generator()
        self.processes = Processes()
        self.logged: dict[str, float] = {}
        self.notes: list[dict[str, Any]] = []
        self._options = options
        self._parameters = parameters

    @property
    def units(self) -> UnitMasks | None:
        """The units that are pruned; None: single weights are."""
        return self.targets.units

    @property
    def limits(self) -> dict[str, int]:
        """Parameter name -> how many of its weights may be removed at most."""
        return self.targets.limits

    @property
    def total(self) -> int:
        """How many prunable weights there are, or units."""
        return self.targets.total

    @property
    def due(self) -> bool:
        """Whether the schedule wants new masks now."""
        return self.schedule.due(self.step)

    @property
    def target(self) -> float:
        """Sparsity that the ramp asks for now."""
        return self.schedule.target(self.step)

    def prunable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of everything that needs scores, fresh at each call.

        That is what the policy lets be pruned, or with units what says how much they matter.
        """
        return self._parameters()

    def scorer(self, name: str) -> Callable[[], dict[str, Tensor]]:
        """The function that scores all prunable weights by `--prune.score NAME`; ask in `setup`.

        Raises:
            UnknownNameError: no plugin offers a score of that name.
        """
        score = find_score(name, self.scores)
        return lambda: {n: whole(score(self, n, parameter)) for n, parameter in self.prunable()}

    def leave_out(self, name: str, reason: str) -> None:
        """Remove nothing of this parameter; in `setup`. The report gives the reason."""
        self.limits[name] = 0
        self.left_out[name] = reason

    def fix_sparsity(self, sparsity: float) -> None:
        """Say what the run ends with; in `setup`, for a method whose pattern decides it."""
        self.schedule = dataclasses.replace(self.schedule, sparsity=sparsity)

    def mask(self, name: str) -> Tensor:
        """A copy of the present mask of one parameter, True where kept."""
        return self.targets.store.mask(name)

    def reduce(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all processes of the run, as a new tensor.

        For scores of what a process sees of the data itself; gradients are means already. All
        processes must call this the same number of times.
        """
        return self.processes.mean(tensor)

    def log(self, name: str, value: float) -> None:
        """Record a number as `prune/NAME` with the metrics of this step."""
        self.logged[f"prune/{name}"] = float(value)

    def note(self, values: Mapping[str, Any]) -> None:
        """Put JSON values into the history of the masks, which is saved and in the report."""
        self.notes.append(dict(values))

    def prune_lowest(self, scores: Mapping[str, Tensor], sparsity: float | None = None) -> Proposal:
        """Propose to remove the lowest-scored weights, exactly as many as the sparsity says.

        Weights that are removed already stay so and count. `--prune.scope` decides whether tensors
        are ranked together, and the policy's caps hold. With units, those of the lowest mean score
        go, as near to the sparsity as the numbers that a block may keep allow.

        Args:
            scores: a score per weight for every prunable parameter; the lowest go first. Sharded
                ones (FSDP2) are gathered.
            sparsity: fraction of all prunable weights, or units; None: `target`.
        Raises:
            ProposalError: scores are missing, NaN or of the wrong shape.
        """
        wanted = self.target if sparsity is None else sparsity
        if self.units is not None:
            checked = {name: _checked(name, p.shape, scores) for name, p in self.prunable()}
            keep = self.units.choose(checked, wanted, self._options.scope)
            return Proposal(units=keep, target=wanted)
        ranked = {
            name: self._with_removed_first(name, scores) for name in self.targets.store.shapes
        }
        try:
            return Proposal(self._keep(ranked, wanted), target=wanted)
        except ConfigError as error:
            raise ProposalError(str(error)) from error

    def _keep(self, ranked: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        removed = {name: self.targets.store.pruned(name) for name in ranked}
        if self._options.scope == "global":
            count = target_count(sparsity, self.targets.store.total)
            return keep_globally(ranked, max(count, sum(removed.values())), self.limits)
        if self._options.scope == "erk":
            counts = erk_counts(self.targets.store.shapes, self.limits, sparsity)
        else:
            sizes = {name: score.numel() for name, score in ranked.items()}
            counts = layer_counts(sizes, self.limits, sparsity)
        return keep_per_layer(ranked, {n: max(counts[n], removed[n]) for n in ranked})

    def _with_removed_first(self, name: str, scores: Mapping[str, Tensor]) -> Tensor:
        score = _checked(name, self.targets.store.shapes[name], scores)
        return score.masked_fill(~self.targets.store.mask(name).to(score.device), -torch.inf)


def _checked(name: str, shape: torch.Size, scores: Mapping[str, Tensor]) -> Tensor:
    if name not in scores or scores[name].shape != shape:
        got = tuple(scores[name].shape) if name in scores else "nothing"
        raise ProposalError(f"the scores hold {got} for {name}, expected shape {tuple(shape)}")
    score = whole(scores[name].detach())
    if bool(score.isnan().any()):
        raise ProposalError(f"the scores of {name} hold NaN, expected numbers")
    return score if score.is_floating_point() else score.float()
