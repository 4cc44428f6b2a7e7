"""What the adapters say about the linear maps and convolutions inside a layer."""

from __future__ import annotations

from torch import Tensor, nn

from ssm_prune.units import Slice


def rows(module: nn.Module, part: str, places: Tensor) -> list[Slice]:
    """Rows of a linear map, or channels of a convolution: its weight and, if it has one, its bias.

    Args:
        part: name of the linear map within `module`.
        places: as in `Slice`.
    """
    owner = module.get_submodule(part)
    return [Slice(f"{part}.{name}", 0, places) for name, _ in owner.named_parameters()]


def parameters_of(module: nn.Module, part: str) -> tuple[str, ...]:
    """Names of all parameters of a part, for `BlockAdapter.silenced`."""
    return tuple(name for name, _ in module.get_submodule(part).named_parameters(prefix=part))
