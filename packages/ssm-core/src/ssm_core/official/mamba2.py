"""The mixer of state-spaces/mamba, `Mamba2` (SSD). Our layer has its names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssm_core.config import make_config
from ssm_core.errors import CheckpointError, ConfigError
from ssm_core.layers.mamba2 import Mamba2
from ssm_core.layers.mamba2_config import Mamba2Config
from ssm_core.official.axes import Layout, Sizes, fit
from ssm_core.official.build import filled
from ssm_core.official.mamba import has_biases, whole_expansion
from ssm_core.official.options import Fact, check_facts, check_names, fields_of
from ssm_core.official.tensors import Tensors

SEPARATOR = "."
#: names by which this layer, or another form of it, is found inside a larger checkpoint
LANDMARKS = (("in_proj.weight", "dt_bias", "A_log"),)

#: what the tensors do not say, and initial values, under the names that both have
_KEPT = {
    name: name
    for name in (
        *("norm_before_gate", "dt_limit", "chunk_size"),
        *("conv_init", "A_init_range", "dt_min", "dt_max", "dt_init_floor"),
    )
}
#: kernels, caches and processes: nothing that a loaded layer computes depends on them
_WITHOUT_EFFECT = (
    *("use_mem_eff_path", "layer_idx", "process_group", "sequence_parallel"),
    *("dt_init", "dt_scale"),
)


def build(tensors: Tensors, config: Mapping[str, Any], hint: str) -> Mamba2:
    """Build a Mamba2 from an official mixer's tensors."""
    sizes = fit("mamba2", tensors, _layout(tensors, config), hint)
    facts = _facts(tensors, config, sizes)
    check_names("mamba2", config, {*facts, *_KEPT, *_WITHOUT_EFFECT})
    if config.get("d_ssm", 0) is None:
        config = {**config, "d_ssm": sizes["E"]}
    check_facts("mamba2", config, facts, tensors)
    found = {name: fact.value for name, fact in facts.items() if name != "d_model"}
    if sizes["d_ssm"] == sizes["E"]:
        found["d_ssm"] = None
    fields = found | fields_of("mamba2", config, _KEPT)
    layer = Mamba2(sizes["d"], make_config(Mamba2Config, fields, "mamba2"))
    return filled("mamba2", layer, tensors)


def _layout(tensors: Tensors, config: Mapping[str, Any]) -> Layout:
    """The axes, with gn the width of B, n numbers for each group."""
    bias = has_biases(tensors)
    return {
        "A_log": "h",
        "dt_bias": "h",
        "D": "d_ssm" if _skips_per_channel(tensors, config) else "h",
        **({"norm.weight": "d_ssm"} if "norm.weight" in tensors else {}),
        "conv1d.weight": "d_ssm+2gn, 1, k",
        **({"conv1d.bias": "d_ssm+2gn"} if "conv1d.bias" in tensors else {}),
        **({"init_states": "h, p, n"} if "init_states" in tensors else {}),
        "out_proj.weight": "d, E",
        "in_proj.weight": "2E+2gn+h, d",
        **({"in_proj.bias": "2E+2gn+h", "out_proj.bias": "d"} if bias else {}),
    }


def _skips_per_channel(tensors: Tensors, config: Mapping[str, Any]) -> bool:
    D, A_log = tensors.get("D"), tensors.get("A_log")
    if D is None or A_log is None or D.shape == A_log.shape:
        # with heads of one channel both readings have the same shape and the same meaning
        return D is not None and config.get("D_has_hdim") is True and config.get("headdim") == 1
    return True


def _facts(tensors: Tensors, config: Mapping[str, Any], sizes: Sizes) -> dict[str, Fact]:
    heads, d_ssm = sizes["h"], sizes["d_ssm"]
    if heads < 1 or d_ssm % heads:
        raise CheckpointError(
            f"mamba2: {d_ssm} channels of the scan (conv1d.weight of shape "
            f"{tuple(tensors['conv1d.weight'].shape)}) are no multiple of the {heads} heads "
            "of A_log"
        )
    groups = _groups(tensors, config, sizes)
    return {
        "d_model": Fact(sizes["d"], "out_proj.weight"),
        "d_state": Fact(sizes["gn"] // groups, "conv1d.weight"),
        "ngroups": Fact(groups, "conv1d.weight"),
        "d_conv": Fact(sizes["k"], "conv1d.weight"),
        "expand": Fact(whole_expansion("mamba2", sizes["E"], sizes["d"]), "out_proj.weight"),
        "headdim": Fact(d_ssm // heads, "A_log"),
        "d_ssm": Fact(d_ssm, "conv1d.weight"),
        "D_has_hdim": Fact(_skips_per_channel(tensors, config), "D"),
        "rmsnorm": Fact("norm.weight" in tensors, "norm.weight"),
        "bias": Fact(has_biases(tensors), "in_proj.bias"),
        "conv_bias": Fact("conv1d.bias" in tensors, "conv1d.bias"),
        "learnable_init_states": Fact("init_states" in tensors, "init_states"),
    }


def _groups(tensors: Tensors, config: Mapping[str, Any], sizes: Sizes) -> int:
    """The number of groups: what is said, or follows from the number of states; otherwise 1.

    Raises:
        ConfigError: the numbers do not divide the width of B.
    """
    width = sizes["gn"]
    for name in ("ngroups", "d_state"):
        part = sizes.get("n") if name == "d_state" and "n" in sizes else config.get(name)
        if part is None:
            continue
        if isinstance(part, bool) or not isinstance(part, int) or part < 1 or width % part:
            raise ConfigError(
                f"mamba2: {name} is {part!r}, but conv1d.weight of shape "
                f"{tuple(tensors['conv1d.weight'].shape)} makes ngroups * d_state = {width}"
            )
        return part if name == "ngroups" else width // part
    return 1
