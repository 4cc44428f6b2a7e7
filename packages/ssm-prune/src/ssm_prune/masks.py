"""The masks of a run: the only place that zeroes weights, gradients and optimizer slots.

Masks act in place on the real parameters. Hooks that replace a parameter before `forward` would be
missed by fused layers, which read `weight` directly. Every process keeps the masks whole; where
parameters are sharded (FSDP2), the part of a mask is cut out anew each time, since a part that was
kept would be of the old mask once that is replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_prune.distributed import local, local_part

_BITS = (1, 2, 4, 8, 16, 32, 64, 128)


class MaskStore:
    """One boolean mask per prunable parameter, True where the weight is kept.

    Args:
        shapes: name -> shape of every prunable parameter.
    """

    def __init__(self, shapes: Mapping[str, torch.Size]) -> None:
        self.shapes = dict(shapes)
        # True where removed; absent: nothing removed, which costs nothing per step
        self._dropped: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def mask(self, name: str) -> Tensor:
        """A copy of the mask of one parameter."""
        if name in self._dropped:
            return ~self._dropped[name]
        return torch.ones(self.shapes[name], dtype=torch.bool)

    def pruned(self, name: str) -> int:
        """How many weights of one parameter are removed."""
        return self._counts.get(name, 0)

    @property
    def total(self) -> int:
        """How many prunable weights there are."""
        return sum(shape.numel() for shape in self.shapes.values())

    @property
    def total_pruned(self) -> int:
        """How many of them are removed."""
        return sum(self._counts.values())

    def replace(self, masks: Mapping[str, Tensor]) -> None:
        """Take over new masks (True keeps) for some of the parameters."""
        for name, mask in masks.items():
            if mask.dtype != torch.bool or mask.shape != self.shapes[name]:
                raise ValueError(f"mask of {name} is {mask.dtype} {tuple(mask.shape)}")
            dropped = ~mask.detach()
            count = int(dropped.sum())
            if count:
                self._dropped[name], self._counts[name] = dropped, count
            else:
                self._dropped.pop(name, None)
                self._counts.pop(name, None)

    @torch.no_grad()
    def zero_gradients(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Set the gradients of removed weights to zero, in place."""
        for name, parameter in parameters:
            if parameter.grad is not None:
                self._zero(name, parameter.grad)

    @torch.no_grad()
    def enforce(
        self, parameters: Iterable[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer
    ) -> None:
        """Set removed weights and their optimizer slots (momentum, moments) to +0, in place.

        Filling, not multiplying: 0 times NaN is NaN, and 0 times a negative number is -0.
        """
        for name, parameter in parameters:
            self._zero(name, parameter)
            for slot in optimizer.state.get(parameter, {}).values():
                if isinstance(slot, Tensor) and slot.shape == parameter.shape:
                    self._zero(name, slot)

    @torch.no_grad()
    def enforce_average(self, average: Mapping[str, Tensor]) -> None:
        """Set removed weights to +0 in a moving average of the weights, by name and in place.

        Zeroing the weights alone would leave what the average remembers of them.
        """
        for name in self._dropped:
            if name in average:
                self._zero(name, average[name])

    def digest(self) -> int:
        """A signed 64-bit number that differs, for all practical purposes, if any mask does."""
        found = hashlib.sha256()
        for name in sorted(self._dropped):
            found.update(name.encode() + b"\0")
            found.update(pack_bits(self._dropped[name]).numpy().tobytes())
        return int.from_bytes(found.digest()[:8], "little", signed=True)

    def state_dict(self) -> dict[str, Any]:
        """Masks with one bit per weight, only of parameters that lost any."""
        return {
            name: {"bits": pack_bits(dropped), "shape": list(dropped.shape)}
            for name, dropped in self._dropped.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved masks.

        Raises:
            CheckpointError: a mask of a parameter that this run does not prune, or of other shape.
        """
        self._dropped.clear()
        self._counts.clear()
        for name, saved in state.items():
            shape = torch.Size(saved["shape"])
            if self.shapes.get(name) != shape:
                raise CheckpointError(
                    f"the checkpoint has a mask {tuple(shape)} for {name}, but the model has "
                    f"{tuple(self.shapes[name]) if name in self.shapes else 'nothing prunable'} "
                    "there: resume with the model and the policy of the original run"
                )
            self.replace({name: ~unpack_bits(saved["bits"], shape)})

    def _zero(self, name: str, values: Tensor) -> None:
        """Set what is removed of the parameter `name` to +0 in a tensor of its shape."""
        if name not in self._dropped:
            return
        if self._dropped[name].device != values.device:
            self._dropped[name] = self._dropped[name].to(values.device)
        local(values).masked_fill_(local_part(self._dropped[name], values), 0)


def pack_bits(flags: Tensor) -> Tensor:
    """Eight booleans per byte, the first in the lowest bit; the last byte is padded with False."""
    flat = flags.flatten().cpu()
    padded = torch.zeros((flat.numel() + 7) // 8 * 8, dtype=torch.uint8)
    padded[: flat.numel()] = flat
    powers = torch.tensor(_BITS, dtype=torch.uint8)
    return (padded.view(-1, 8) * powers).sum(dim=1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, shape: torch.Size) -> Tensor:
    """The booleans of `shape` that `pack_bits` packed."""
    powers = torch.tensor(_BITS, dtype=torch.uint8)
    flat = packed.unsqueeze(1).bitwise_and(powers).ne(0).flatten()
    return flat[: shape.numel()].view(shape)
