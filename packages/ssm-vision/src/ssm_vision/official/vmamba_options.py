"""The arguments of the original VMamba that decide what is computed beside the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ssm_core.errors import ConfigError
from ssm_vision.models.vmamba_config import doubling

#: forms that differ in kernels and precision alone: v05 reads what comes, the others float32
_SCANS = ("v0", "v01", "v02", "v03", "v04", "v05", "v2", "v3")
_WITHOUT_GATE, _NOT_FORCED = "noz", "no32"

#: arguments of which only these values are built here: what the published models have
ONLY: dict[str, tuple[object, ...]] = {
    "ssm_act_layer": ("silu",),
    "mlp_act_layer": ("gelu",),
    "norm_layer": ("ln", "ln2d"),
    "patch_norm": (True,),
    "post_norm": (False,),
    "gmlp": (False,),
    "ssm_drop_rate": (0.0,),
    "mlp_drop_rate": (0.0,),
}
#: initial values, layout and memory: nothing that a loaded model computes depends on them
WITHOUT_EFFECT = ("ssm_init", "ssm_rank_ratio", "use_checkpoint", "channel_first")
#: what the forms called v0 do whatever these say
_FIXED_IN_V0 = ("ssm_act_layer", "ssm_conv", "ssm_conv_bias")


class ScanForm(NamedTuple):
    """What a `forward_type` says."""

    gated: bool
    float32_scan: bool


def scan_form(value: object, in_proj: str, gated: bool) -> ScanForm:
    """Read a `forward_type`, "v05_noz" for instance; None stands for what the tensors say.

    Args:
        in_proj: name of the tensor that says whether there is a gate.
        gated: what it says.
    Raises:
        ConfigError: a form that is not built here, or one that the tensor contradicts.
    """
    if value is None:
        return ScanForm(gated, float32_scan=gated)
    base, *suffixes = str(value).lower().split("_")
    if base not in _SCANS or not set(suffixes) <= {_WITHOUT_GATE, _NOT_FORCED}:
        raise ConfigError(
            f"vmamba: forward_type is {value!r}, expected one of {', '.join(_SCANS)}, if need be "
            f"with _{_WITHOUT_GATE} or _{_NOT_FORCED}"
        )
    if gated == (_WITHOUT_GATE in suffixes):
        rows = "two rows" if gated else "one row"
        raise ConfigError(
            f"vmamba: forward_type is {value!r}, but {in_proj} has {rows} for every inner channel, "
            f"expected {'one' if gated else 'two'}"
        )
    return ScanForm(gated, base != "v05" and _NOT_FORCED not in suffixes)


def comparable(config: Mapping[str, Any], stages: int) -> dict[str, Any]:
    """The arguments in one form each, without those that make no difference.

    Raises:
        ConfigError: one that is not built here.
    """
    fixed = _FIXED_IN_V0 if config.get("forward_type") == "v0" else ()
    given = {name: _plain(value) for name, value in config.items() if name not in fixed}
    for name, built in ONLY.items():
        if name in given and given[name] not in built:
            expected = " or ".join(repr(value) for value in built)
            raise ConfigError(f"vmamba: {name} is {given[name]!r}, expected {expected}")
    if isinstance(given.get("dims"), int):
        given["dims"] = list(doubling(given["dims"], stages))
    return given


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.lower()
    return list(value) if isinstance(value, tuple) else value
