"""What the author of a pruning method writes: a `Pruner` and the `MethodSpec` that offers it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from ssm_prune.options import PruneOptions

if TYPE_CHECKING:
    from ssm_prune.context import PruneContext

API_VERSION = 1
#: everybody's name for this pattern, and the only one with the ':' of DISTRIBUTION:METHOD
_N_M = "n:m"


@dataclass(frozen=True)
class Proposal:
    """New masks that a method wants; True keeps, and what is left out stays as it is.

    Attributes:
        masks: name of the parameter -> mask of its shape. Empty when whole units are pruned.
        units: name of the module -> mask of its units (`--prune.units`), (units,) bool.
        target: the sparsity that was asked for; None: what the schedule asks for now.
    """

    masks: Mapping[str, Tensor] = field(default_factory=dict)
    units: Mapping[str, Tensor] = field(default_factory=dict)
    target: float | None = None


@dataclass(frozen=True)
class Materialise:
    """Take the masked units out of the model now; training goes on with what is left.

    The method has done its part then: it is not asked again.

    Attributes:
        proposal: masks to set first; if a check of a plugin stops them, nothing is taken out.
    """

    proposal: Proposal | None = None


@dataclass(frozen=True)
class Rewind:
    """Train another level, at the learning rates and on the data from after `step` steps on.

    Attributes:
        step: one that `Pruner.rewind_points` named, so that the host kept what was there.
        proposal: masks to begin the level with.
        weights: all weights and buffers as they were then (saved); those, but each prunable tensor
            with its values in random order (shuffled); or as they are now (present).
        optimizer: empty its slots (reset), have them as they were then (restore) or as they are
            now (keep).
    """

    step: int
    proposal: Proposal
    weights: Literal["saved", "shuffled", "present"] = "saved"
    optimizer: Literal["reset", "restore", "keep"] = "reset"


@dataclass(frozen=True)
class Problem:
    """Why a proposal should not be carried out; the answer of `ssm_prune_check`."""

    message: str


@dataclass(frozen=True)
class MasksChanged:
    """Masks have changed; told to `ssm_prune_masks_changed`.

    Attributes:
        step: optimizer steps completed.
        target: sparsity that the ramp asked for.
        pruned: prunable weights that are removed now.
        total: prunable weights.
    """

    step: int
    target: float
    pruned: int
    total: int


class Pruner:
    """Base of all methods; every method is optional.

    One object is made per run. All calls run under `torch.no_grad()`. Never keep a parameter: ask
    `ctx.prunable()` anew in each call.

    Args:
        options: an instance of the `options` class of the `MethodSpec`.
    """

    #: masks change when `ctx.due`, to the sparsity `ctx.target`; False: when the method likes
    follows_schedule: ClassVar[bool] = True

    def __init__(self, options: Any) -> None:
        self.options = options

    def setup(self, ctx: PruneContext) -> None:
        """Called once, before training; allocate tensors here."""

    def before_optimizer_step(self, ctx: PruneContext) -> None:
        """Gradients are complete and still dense (removed weights have theirs too), not clipped."""

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | Materialise | None:
        """Propose new masks, usually when `ctx.due`; None leaves them."""
        return None

    def on_epoch_end(self, ctx: PruneContext) -> Proposal | Materialise | None:
        """All batches of an epoch are done (`ctx.epoch` counts it); it is evaluated next."""
        return None

    def rewind_points(self, ctx: PruneContext) -> Collection[int]:
        """Steps after which the host is to keep the weights for `Rewind`; asked after `setup`."""
        return ()

    def on_steps_done(self, ctx: PruneContext) -> Rewind | None:
        """All steps are done and evaluated; None ends the run."""
        return None

    def promised(self, ctx: PruneContext) -> float:
        """The sparsity that must have been reached if the run ends now; less is an error."""
        return ctx.schedule.sparsity if ctx.step >= ctx.schedule.end else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and JSON values that must survive a kill."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned; called after `setup`.

        Raises:
            NotImplementedError: a method that saves a state must also say how to read it.
        """
        if state:
            raise NotImplementedError(f"{type(self).__name__} saves a state but cannot load it")


@dataclass(frozen=True)
class MethodSpec:
    """A pruning method as a plugin offers it.

    Attributes:
        name: what `--prune NAME` takes.
        cls: a `Pruner`, built with an instance of `options`.
        summary: one line for `ssm-train list pruners`.
        options: frozen dataclass derived from `PruneOptions`.
        api: version of the interface that the method was written for.
    """

    name: str
    cls: type[Pruner]
    summary: str
    options: type[PruneOptions] = PruneOptions
    api: int = API_VERSION

    def __post_init__(self) -> None:
        word = self.name and self.name == "".join(self.name.split())
        if not word or (":" in self.name and self.name != _N_M):
            raise ValueError(f"method name {self.name!r}, expected a word without ':' or spaces")
        if self.api != API_VERSION:
            raise ValueError(
                f"method {self.name!r} was written for interface {self.api}, this ssm-prune has "
                f"interface {API_VERSION}: install matching versions"
            )
        if not (issubclass(self.options, PruneOptions) and dataclasses.is_dataclass(self.options)):
            raise ValueError(f"method {self.name!r}: options must be a dataclass of PruneOptions")
