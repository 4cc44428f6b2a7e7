"""A small model, and a training of it that a method of pruning takes part in."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssm_prune.controller import Controller
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.pruner import MethodSpec
from ssm_prune.rewind import rewind_state
from ssm_prune.steps import RunLength

STEPS = 30
EPOCH = 10


class ToyModel(nn.Module):
    """A gated layer with the parameter names of a Mamba block, small and of odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 9)
        self.norm = nn.LayerNorm(9)
        self.in_proj = nn.Linear(9, 22)
        self.x_proj = nn.Linear(11, 7, bias=False)
        self.dt_proj = nn.Linear(7, 11)
        self.A_log = nn.Parameter(torch.arange(1.0, 12.0).log())
        self.D = nn.Parameter(torch.ones(11))
        self.out_proj = nn.Linear(11, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, 5) to (b, 3)."""
        hidden = self.norm(self.embed(x))
        value, gate = self.in_proj(hidden).chunk(2, dim=-1)
        step = nn.functional.softplus(self.dt_proj(self.x_proj(value)))
        value = value * torch.exp(-step * self.A_log.exp()) + self.D * value
        return self.head(hidden + self.out_proj(value * nn.functional.silu(gate)))


class ToyRun:
    """A model, an optimizer and, unless `spec` is None, a method at work on them.

    Args:
        spec: the method; None trains without pruning.
        options: options of the method.
        optimizer: `sgd` (momentum, Nesterov, weight decay) or `adamw`.
        plugins: pruning plugins that take part; by default the host alone.
    """

    def __init__(
        self,
        spec: MethodSpec | None,
        options: Mapping[str, Any],
        optimizer: str = "adamw",
        plugins: PrunePlugins | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = ToyModel()
        self.optimizer: torch.optim.Optimizer
        if optimizer == "sgd":
            self.optimizer = torch.optim.SGD(
                self.model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01
            )
        else:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01, weight_decay=0.01)
        self.steps = 0
        self.losses: list[float] = []
        self.kept: dict[str, Any] = {}
        self.controller: Controller | None = None
        if spec is not None:
            plugins = plugins or PrunePlugins(load_entry_points=False)
            method = Method(spec, "conformance", "0")
            self.controller = Controller(method, spec.options(**options), plugins)
            length = RunLength(STEPS, EPOCH)
            self.controller.start(self.model, self.optimizer, length, seed=0)
            self._keep()

    def step(self) -> float:
        """Train one step on data that depend on the step's number alone; return the loss."""
        data = torch.Generator().manual_seed(self.steps)
        x = torch.randn(8, 5, generator=data)
        target = torch.randint(3, (8,), generator=data)
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(x), target)
        loss.backward()
        if self.controller is not None:
            self.controller.before_optimizer_step(self.steps)
        self.optimizer.step()
        self.steps += 1
        if self.controller is not None:
            self.controller.after_optimizer_step(self.steps)
            self._keep()
            if self.steps % EPOCH == 0:
                self.controller.epoch_end(self.steps // EPOCH)
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def goes_on(self) -> bool:
        """Whether there are steps to do; after the last one the method may begin a level."""
        if self.steps < STEPS:
            return True
        rewind = self.controller.steps_done(self.steps) if self.controller is not None else None
        if rewind is None:
            return False
        assert self.controller is not None
        self.controller.begin_level(rewind, copy.deepcopy(self.kept[str(rewind.step)]))
        self.steps = rewind.step
        return True

    def finish(self) -> None:
        """Train to the end of the last level."""
        while self.goes_on():
            self.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything a run continues from, as a training engine would save it."""
        assert self.controller is not None
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "prune": self.controller.state_dict(),
            "steps": self.steps,
            "kept": self.kept,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        assert self.controller is not None
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.controller.load_state_dict(state["prune"])
        self.steps, self.kept = state["steps"], dict(state["kept"])

    def _keep(self) -> None:
        """Keep what the method may want back."""
        assert self.controller is not None
        if self.steps in self.controller.points and str(self.steps) not in self.kept:
            state = rewind_state(self.model, self.optimizer, None)
            self.kept[str(self.steps)] = copy.deepcopy(state)

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all weights and all optimizer slots, by name."""
        found = {f"weight {n}": p.detach().clone() for n, p in self.model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            for slot, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"{slot} {name}"] = value.clone()
        return found
