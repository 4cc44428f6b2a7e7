"""Ours in place of a function of transformers, or that function where ours does not apply."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from ..backends import why_not_native
from ..causal_conv1d import MAX_WIDTH
from ..errors import BackendError
from . import functions

NAME = "huggingface.accelerate"
Function = Callable[..., Any]

SCANS = frozenset({"mamba_selective_scan", "mamba2_chunk_scan"})
_OURS: dict[str, Function] = {
    "mamba_selective_scan": functions.mamba_selective_scan,
    "mamba2_chunk_scan": functions.mamba2_chunk_scan,
    "causal_conv1d_fn": functions.causal_conv1d_fn,
    "causal_conv1d_update": functions.causal_conv1d_update,
    "mamba_selective_state_update": functions.mamba_selective_state_update,
    "mamba2_selective_state_update": functions.mamba_selective_state_update,
}
_IN_PLACE = frozenset(name for name in _OURS if name.endswith("_update"))
_CONVOLUTIONS = frozenset(name for name in _OURS if name.startswith("causal_conv1d"))
_SHORTCUTS = frozenset({"mamba_inner_fn", "mamba2_split_conv1d_scan_combined"})
"""A whole mixer in one function, for training; where it returns None the mixer calls the others."""


def replacements(names: Mapping[str, Function]) -> dict[str, Function]:
    """Functions to find instead of those of transformers, of which `names` are in use.

    Raises:
        BackendError: one of them takes other arguments than it did.
    """
    found: dict[str, Function] = {}
    for name, original in names.items():
        if name in _SHORTCUTS:
            found[name] = _no_shortcut
        elif name in _OURS:
            _check_arguments(name, original)
            found[name] = _ours_or(original, name)
    return found


def applies(x: Tensor) -> bool:
    """Whether ours may run where x is: not while transformers exports a model."""
    from transformers.utils.import_utils import is_torchdynamo_exporting

    device = x.device
    return not is_torchdynamo_exporting() and why_not_native(device.type, device.index or 0) is None


def _no_shortcut(*_: object, **__: object) -> None:
    return None


def _check_arguments(name: str, original: Function) -> None:
    expected = list(inspect.signature(_OURS[name]).parameters)
    # The kernels library wraps functions in modules.
    visible = original.forward if isinstance(original, nn.Module) else original
    parameters = inspect.signature(visible).parameters.values()
    got = [x.name for x in parameters if x.kind is not inspect.Parameter.VAR_KEYWORD]
    if got != expected:
        raise BackendError(
            f"{NAME}: {original.__module__}.{name} takes ({', '.join(got)}), expected "
            f"({', '.join(expected)}); this version of transformers is not supported yet"
        )


def _ours_or(original: Function, name: str) -> Function:
    ours = _OURS[name]
    known = frozenset(inspect.signature(ours).parameters)
    in_place, convolution = name in _IN_PLACE, name in _CONVOLUTIONS

    @wraps(ours)
    def call(*arguments: Any, **options: Any) -> Any:
        first: Tensor = arguments[0]
        if (
            not applies(first)
            or options.get("seq_idx") is not None
            or options.get("cu_seqlens") is not None
            or (in_place and _needs_gradient(*arguments, *options.values()))
            or (convolution and _width(arguments, in_place) > MAX_WIDTH)
        ):
            return original(*arguments, **options)
        # Like transformers, which hands everything to everyone.
        return ours(*arguments, **{key: options[key] for key in options if key in known})

    return call


def _needs_gradient(*arguments: Any) -> bool:
    tensors = (x for x in arguments if isinstance(x, Tensor))
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def _width(arguments: tuple[Any, ...], in_place: bool) -> int:
    return int(arguments[2 if in_place else 1].shape[-1])
