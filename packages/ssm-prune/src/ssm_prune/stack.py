"""Several methods on one model: a weight is kept only if every one of them keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.errors import CheckpointError, ConfigError
from ssm_prune.controller import Controller
from ssm_prune.errors import PruneError
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.options import PruneOptions
from ssm_prune.removal import Removal
from ssm_prune.stack_options import stacked_methods
from ssm_prune.steps import RunLength


class Stack:
    """The methods of one run, in order: the one that `--prune` names, and those of `prune.stack`.

    Each has masks, a clock and a state of its own, as if it were alone; all see the dense
    gradients, and the weights that those before them have left. When units are taken out of the
    model, the methods after begin anew with the smaller one.

    Attributes:
        controllers: one per method.
    """

    def __init__(
        self,
        method: Method,
        options: PruneOptions,
        plugins: PrunePlugins,
        on_removal: Callable[[Removal], None] | None = None,
    ) -> None:
        """Make the controllers of one run.

        Args:
            on_removal: called after units were taken out, for what else holds tensors.
        Raises:
            ConfigError: `options.stack` names what does not exist or does not go together.
        """
        chosen = [(method, options), *stacked_methods(method, options, plugins)]
        self._on_removal = on_removal
        self.controllers = [
            Controller(one, its, plugins, partial(self._removed, number))
            for number, (one, its) in enumerate(chosen)
        ]

    @property
    def first(self) -> Controller:
        """That of the method that `--prune` names."""
        return self.controllers[0]

    def start(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, length: RunLength, seed: int
    ) -> None:
        """Start every method (`Controller.start`).

        Raises:
            ConfigError: also, methods that cannot work in this order or at these times.
        """
        self._length, self._seed = length, seed
        for controller in self.controllers:
            controller.start(model, optimizer, length, seed)
        check_times(self.controllers)

    @torch.no_grad()
    def before_optimizer_step(self, step: int) -> None:
        """Show all methods the dense gradients, then zero those of removed weights."""
        for controller in self.controllers:
            controller.show_gradients(step)
        for controller in self.controllers:
            controller.zero_gradients()

    def after_optimizer_step(
        self, step: int, average: Callable[[], Mapping[str, Tensor] | None]
    ) -> dict[str, float]:
        """Let the methods change masks, one after the other (`Controller.after_optimizer_step`).

        Args:
            average: gives the moving average, which is another one after a removal.
        """
        return self._logged(lambda one: one.after_optimizer_step(step, average()))

    def epoch_end(
        self, epoch: int, average: Callable[[], Mapping[str, Tensor] | None]
    ) -> dict[str, float]:
        """The same at the end of an epoch (`Controller.epoch_end`)."""
        return self._logged(lambda one: one.epoch_end(epoch, average()))

    def check_reached(self, step: int) -> None:
        """Has every method reached what it promised (`Controller.check_reached`)?"""
        for controller in self.controllers:
            controller.check_reached(step)

    def state_dict(self) -> dict[str, Any]:
        """The state of the first method, with those of the others under `stack`."""
        first, *others = (controller.state_dict() for controller in self.controllers)
        return first | {"stack": others}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned, after `start`.

        Raises:
            CheckpointError: saved by other methods or versions, or with other options.
        """
        states = [state, *state["stack"]]
        old = [saved["method"] for saved in states]
        new = [controller.method.spec.name for controller in self.controllers]
        if len(old) != len(new):
            raise CheckpointError(
                f"the checkpoint was pruned with {', '.join(old)}, this run with "
                f"{', '.join(new)}: resume with the prune.stack of the original run"
            )
        for controller, saved in zip(self.controllers, states, strict=True):
            controller.load_state_dict(saved)

    def _logged(self, ask: Callable[[Controller], dict[str, float]]) -> dict[str, float]:
        """What the methods log; names say which, but for the first."""
        found: dict[str, float] = {}
        for number, controller in enumerate(self.controllers):
            own = f"prune/{controller.method.spec.name}/" if number else "prune/"
            for name, value in ask(controller).items():
                found[own + name.removeprefix("prune/")] = value
        return found

    def _removed(self, number: int, removal: Removal) -> None:
        """Method `number` has taken units out of the model."""
        if self._on_removal is not None:
            self._on_removal(removal)
        for other in self.controllers[number + 1 :]:
            if other.targets.removed:
                raise PruneError(
                    f"method {self.controllers[number].method.spec.name!r} takes units out after "
                    f"{other.method.spec.name!r} has begun, whose masks are of the larger model: "
                    "expected that prune.stack begins later, or prune.remove False"
                )
            other.start(other.model, other.optimizer, self._length, self._seed)


def check_times(controllers: Sequence[Controller]) -> None:
    """Refuse methods that cannot work together at their times.

    Raises:
        ConfigError: rewinding among several methods, or one that begins before units are taken out.
    """
    for number, other in enumerate(controllers):
        name, begin = other.method.spec.name, other.schedule.begin
        if other.points and len(controllers) > 1:
            raise ConfigError(
                f"prune.stack: {name!r} goes back to an earlier step, expected methods that do "
                "not: the masks of the others are of later steps"
            )
        for remover in controllers[:number]:
            if remover.options.remove and begin <= remover.schedule.end:
                raise ConfigError(
                    f"prune.stack: {name!r} begins at step {begin}, expected one after step "
                    f"{remover.schedule.end}, up to which {remover.method.spec.name!r} takes units "
                    "out of the model"
                )


def removed_by_any(controllers: Sequence[Controller], name: str) -> int:
    """How many weights of one parameter at least one of the methods has masked."""
    masks = [~one.store.mask(name).cpu() for one in controllers if one.store.pruned(name)]
    return int(torch.stack(masks).any(dim=0).sum()) if masks else 0
