"""The moving average of a run's weights, kept beside the weights that are trained.

Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; the form
with a constant decay as in Tarvainen & Valpola 2017, arXiv:1703.01780.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ssm_core.errors import CheckpointError


class MovingAverage:
    """average <- decay average + (1 - decay) weights, once per optimizer step.

    Parameters are averaged, in float32 at least: in half precision 1 - decay would be lost against
    the average. Buffers are those of the trained model.

    Args:
        module: the model, with the weights that the average starts from.
        decay: share of the average that a step keeps, 0..1.

    Cost: one copy of the parameters, one more while the average is in use, one pass per step.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.values: dict[str, Tensor] = {
            name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in module.named_parameters()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        new = [p.to(self.values[n].dtype) for n, p in self.module.named_parameters()]
        torch._foreach_lerp_(list(self.values.values()), new, 1 - self.decay)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[nn.Module]:
        """Give the model the averaged weights; afterwards it has its own again, bit for bit."""
        parameters = dict(self.module.named_parameters())
        own = {name: p.detach().clone() for name, p in parameters.items()}
        try:
            _copy(self.values, parameters)
            yield self.module
        finally:
            _copy(own, parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, by name of the parameter."""
        return dict(self.values)

    def load_state_dict(self, state: Mapping[str, Tensor] | None) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CheckpointError: there is none, or it is of other parameters.
        """
        if state is None or state.keys() != self.values.keys():
            raise CheckpointError(
                "the checkpoint holds no moving average of this model's weights "
                "(trainer.ema_decay): start a new run with --resume no"
            )
        _copy(state, self.values)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
