"""What may be pruned, and why the rest may not.

Two parts: `safety_verdict` cannot be loosened by a plugin, because zeroing those parameters does
not remove anything but changes the dynamics of the model; `default_verdict` is the host's answer
to the hook `ssm_prune_policy` when no plugin has another one. The user overrides both with
`--prune.allow_unsafe`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from ssm_core.errors import ConfigError


@dataclass(frozen=True)
class Verdict:
    """Whether a parameter may be pruned.

    Attributes:
        allow: whether single weights may be zeroed.
        reason: why (not), for people.
        cap: largest fraction of its weights that may be removed.
    """

    allow: bool
    reason: str
    cap: float = 1.0

    def limit(self, size: int) -> int:
        """How many of `size` weights may be removed at most."""
        return int(self.cap * size) if self.allow else 0


#: pattern of the full name -> reason
_NEVER: tuple[tuple[str, str], ...] = (
    (
        r"(.*\.)?A(_\w+)?_log(_\w+)?",
        "state matrix: A = -exp(A_log), so 0 means A = -1 and not 'removed'; remove a whole state",
    ),
    (
        r"(.*\.)?(Lambda|log_A|A_imag|A_real|log_A_real|log_A_imag)(_\w+)?",
        "state matrix: zero is a value like any other there; remove a whole state",
    ),
    (r"(.*\.)?D(_\w+)?", "skip connection of a channel: removed only together with its channel"),
    (
        r"(.*\.)?(dt_bias|log_step|log_dt|inv_dt)(_\w+)?|(.*\.)?dt_proj(_\w+)?\.bias",
        "step size: zero would set every step to softplus(0) = 0.69 and break the time scales",
    ),
)
_SOFT_NAMES: tuple[tuple[str, str], ...] = (
    (
        r"(.*\.)?(pos_embed\w*|position\w*|cls_token\w*|reg_token\w*|mask_token\w*)(\..*)?",
        "position or token embedding: tiny, and every step depends on it",
    ),
)
_CAPPED = re.compile(r"(.*\.)?(x_proj|dt_proj)(_\w+)?\.weight")
_DENSE_OWNERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention)


def safety_verdict(fqn: str, param: nn.Parameter, module: nn.Module) -> Verdict | None:
    """The refusals that no plugin can lift; None when there is none.

    Args:
        fqn: full name of the parameter in the model.
        module: the module that owns it.
    """
    for pattern, reason in _NEVER:
        if re.fullmatch(pattern, fqn):
            return Verdict(False, reason)
    if "norm" in type(module).__name__.lower():
        return Verdict(False, "normalisation: scales a whole channel")
    if param.ndim < 2:
        return Verdict(False, "vector (bias or scale): tiny, removed only with its channel")
    if not param.requires_grad:
        return Verdict(False, "frozen: it does not train")
    return None


def default_verdict(fqn: str, param: nn.Parameter, module: nn.Module, model: nn.Module) -> Verdict:
    """The host's answer for every parameter without a safety refusal."""
    for pattern, reason in _SOFT_NAMES:
        if re.fullmatch(pattern, fqn):
            return Verdict(False, reason)
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return Verdict(False, "embedding: a row is read for one token only")
    if _is_depthwise(module):
        return Verdict(False, "convolution taps of single channels: only whole channels are a gain")
    first, last = _ends(model)
    if param is first or param is last:
        return Verdict(False, f"{'first' if param is first else 'last'} layer of the model")
    if _CAPPED.fullmatch(fqn):
        return Verdict(True, "makes B, C and the step size of every channel: half at most", 0.5)
    if isinstance(module, _DENSE_OWNERS):
        return Verdict(True, "dense weights")
    return Verdict(False, f"the role of a parameter of {type(module).__name__} is not known")


def decide(
    model: nn.Module, ask: Callable[..., Verdict], allow_unsafe: Sequence[str]
) -> dict[str, Verdict]:
    """A verdict for every parameter of `model`, tied ones once.

    Args:
        ask: the hook `ssm_prune_policy`.
        allow_unsafe: name patterns that lift a refusal or a cap.
    Raises:
        ConfigError: a pattern matches no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in allow_unsafe:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"prune.allow_unsafe: {pattern!r} matches no parameter; one is {names[0]!r}"
            )
    verdicts = {}
    for fqn, param in model.named_parameters():
        module = model.get_submodule(fqn.rpartition(".")[0])
        verdict = safety_verdict(fqn, param, module) or ask(
            fqn=fqn, param=param, module=module, model=model
        )
        lifted = any(fnmatchcase(fqn, pattern) for pattern in allow_unsafe)
        if lifted and (not verdict.allow or verdict.cap < 1):
            verdict = Verdict(True, f"by prune.allow_unsafe, although: {verdict.reason}")
        verdicts[fqn] = verdict
    return verdicts


def _is_depthwise(module: nn.Module) -> bool:
    if not isinstance(module, nn.modules.conv._ConvNd):
        return False
    return module.groups > 1 and module.groups == module.in_channels


def _ends(model: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """The weights of the first and the last layer, in order of registration."""
    weights = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd | nn.Embedding)
        and not _is_depthwise(module)
    ]
    return (weights[0], weights[-1]) if weights else (None, None)
