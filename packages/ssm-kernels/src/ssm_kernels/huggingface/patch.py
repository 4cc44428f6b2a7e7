"""Which functions of transformers are replaced, where, and back again."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..backends import why_not_native
from ..errors import ArgumentError, BackendError
from . import inference
from .dispatch import NAME, SCANS, replacements
from .rebind import rebind, undecorated

OLDEST, BELOW = (5, 16), (6, 0)
MODELS = (
    *("mamba", "mamba2", "falcon_mamba", "falcon_h1", "jamba", "zamba", "zamba2", "bamba"),
    *("granitemoehybrid", "nemotron_h"),
)
_classes: dict[type[nn.Module], Callable[..., Any]] = {}
_mixers: WeakKeyDictionary[nn.Module, tuple[str, Any]] = WeakKeyDictionary()
_others: WeakKeyDictionary[nn.Module, tuple[str, Any]] = WeakKeyDictionary()
_ABSENT = object()


def accelerate(model: nn.Module | None = None) -> str:
    """Make transformers' Mamba and Mamba-2 mixers call our operators, on CPU and CUDA.

    Covered are the mixers of `MODELS`, with and without cache, mask and gradients, in the types
    our operators take. Logits equal those of transformers' PyTorch functions up to rounding (in
    bfloat16 and float16 sums are float32 here). transformers' own function still runs where ours
    does not apply: under torch.export, on devices without our kernels, for a decode step that
    needs a gradient, for convolutions wider than 8, and for packed sequences, which it refuses.

    In inference on a CPU, a Mamba mixer without cache and mask is one kernel, and the linear layers
    and norms of a model that is given are `fused_linear` and `fused_rms_norm`.

    Args:
        model: whose mixers, linear layers and norms to change; None changes the mixers' classes,
            for all models from then on and for those that exist (but not where the accelerate
            library's hooks hold a forward).

    Returns:
        One line saying what was replaced.

    Raises:
        ArgumentError: the model has no such mixer.
        BackendError: transformers is missing, is older than 5.16 or not 5.x, or its functions take
            other arguments than they did; or no native kernel can run here. Nothing is changed.
    """
    version = _supported_version()
    found = _replace_classes() if model is None else _replace_mixers(model)
    what = ", ".join(f"{count} x {name}" if count else name for name, count in found.items())
    return f"transformers {version}: {what or 'nothing new'} on the operators of ssm-kernels"


def restore() -> str:
    """Undo every `accelerate`; copies made of an accelerated model (deepcopy) stay as they are.

    Returns:
        One line saying what was restored.
    """
    line = f"restored {len(_classes)} classes and {len(_mixers)} mixers of transformers"
    for cls, forward in _classes.items():
        cls.forward = forward
    for changed in (_mixers, _others):
        for module, (attribute, before) in changed.items():
            if before is _ABSENT:
                delattr(module, attribute)
            else:
                setattr(module, attribute, before)
        changed.clear()
    _classes.clear()
    return line


def _supported_version() -> str:
    try:
        version = importlib.import_module("transformers").__version__
    except ImportError as error:
        raise BackendError(
            f"{NAME}: transformers cannot be imported ({error}); pip install 'transformers>=5.16'"
        ) from None
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if not OLDEST <= numbers < BELOW:
        raise BackendError(
            f"{NAME}: transformers {version} is installed, expected 5.16 or newer and below 6, "
            "whose Mamba models call functions of known names; pip install 'transformers>=5.16,<6'"
        )
    reason = why_not_native("cpu", 0)
    if reason is not None and not torch.cuda.is_available():
        raise BackendError(f"{NAME}: {reason}")
    return version


def _replace_classes() -> dict[str, int]:
    changed: dict[type[nn.Module], Callable[..., Any]] = {}
    for name in MODELS:
        module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
        own = [x for x in vars(module).values() if getattr(x, "__module__", "") == module.__name__]
        mixers = [x for x in own if isinstance(x, type) and "forward" in vars(x) and _is_mixer(x)]
        if not mixers:
            raise BackendError(
                f"{NAME}: {module.__name__} has no mixer that calls {' or '.join(sorted(SCANS))}; "
                "this version of transformers is not supported yet"
            )
        changed |= {cls: _forward_on_ours(cls) for cls in mixers if cls not in _classes}
    for cls, forward in changed.items():
        _classes[cls] = cls.forward
        cls.forward = forward
    return {cls.__name__: 0 for cls in changed}


def _replace_mixers(model: nn.Module) -> dict[str, int]:
    mixers = [module for module in model.modules() if _is_mixer(type(module))]
    if not mixers:
        raise ArgumentError(
            f"{NAME}: {type(model).__name__} has no Mamba mixer of transformers, expected a model "
            f"with layers of {', '.join(MODELS)}"
        )
    new = [x for x in mixers if x not in _mixers and type(x) not in _classes]
    forwards = {cls: _forward_on_ours(cls) for cls in dict.fromkeys(map(type, new))}
    for mixer in new:
        _replace(mixer, forwards[type(mixer)], _mixers)
    for module in model.modules():
        cls = type(module)
        if module not in _others and cls is nn.Linear:
            _replace(module, inference.linear, _others)
        elif module not in _others and _is_theirs(cls) and cls.__name__ in inference.NORMS:
            _replace(module, inference.NORMS[cls.__name__](cls.forward), _others)
    return {cls.__name__: sum(type(x) is cls for x in new) for cls in forwards}


def _replace(
    module: nn.Module,
    forward: Callable[..., Any],
    register: WeakKeyDictionary[nn.Module, tuple[str, Any]],
) -> None:
    # Hooks of the accelerate library put their own forward in front of this one.
    attribute = "_old_forward" if "_old_forward" in vars(module) else "forward"
    register[module] = attribute, vars(module).get(attribute, _ABSENT)
    setattr(module, attribute, MethodType(forward, module))


def _is_theirs(cls: type) -> bool:
    return cls.__module__.startswith("transformers.models.")


def _is_mixer(cls: type) -> bool:
    if not _is_theirs(cls):
        return False
    forward = getattr(cls, "forward", None)
    return forward is not None and not SCANS.isdisjoint(undecorated(forward).__code__.co_names)


def _forward_on_ours(cls: type[nn.Module]) -> Callable[..., Any]:
    forward = undecorated(cls.forward)
    used = set(forward.__code__.co_names)
    names = {name: value for name, value in forward.__globals__.items() if name in used}
    ours = rebind(cls.forward, replacements(names))
    return inference.mixer(ours) if cls.__name__ in inference.PLAIN_MIXERS else ours
