"""The mixer of state-spaces/mamba, `Mamba` (S6). Our layer has its names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ssm_core.config import make_config
from ssm_core.errors import CheckpointError
from ssm_core.layers.mamba import Mamba, MambaConfig
from ssm_core.official.axes import Layout, fit
from ssm_core.official.build import filled
from ssm_core.official.options import Fact, check_facts, check_names, fields_of
from ssm_core.official.tensors import Tensors

SEPARATOR = "."
#: names by which this layer, or another form of it, is found inside a larger checkpoint
LANDMARKS = (("in_proj.weight", "x_proj.weight", "A_log"),)

_KEPT = {name: name for name in ("dt_min", "dt_max", "dt_init_floor")}
#: initial values, kernels and caches: nothing that a loaded layer computes depends on them
_WITHOUT_EFFECT = ("dt_init", "dt_scale", "use_fast_path", "layer_idx")


def build(tensors: Tensors, config: Mapping[str, Any], hint: str) -> Mamba:
    """Build a Mamba from an official mixer's tensors."""
    bias, conv_bias = has_biases(tensors), "conv1d.bias" in tensors
    layout: Layout = {
        "A_log": "E, n",
        "D": "E",
        "conv1d.weight": "E, 1, k",
        **({"conv1d.bias": "E"} if conv_bias else {}),
        "dt_proj.weight": "E, R",
        "dt_proj.bias": "E",
        "x_proj.weight": "R+2n, E",
        "out_proj.weight": "d, E",
        "in_proj.weight": "2E, d",
        **({"in_proj.bias": "2E", "out_proj.bias": "d"} if bias else {}),
    }
    sizes = fit("mamba", tensors, layout, hint)
    d, E, rank = sizes["d"], sizes["E"], sizes["R"]
    expand = whole_expansion("mamba", E, d)
    facts = {
        "d_model": Fact(d, "out_proj.weight"),
        "d_state": Fact(sizes["n"], "A_log"),
        "d_conv": Fact(sizes["k"], "conv1d.weight"),
        "expand": Fact(expand, "out_proj.weight"),
        "dt_rank": Fact(rank, "dt_proj.weight"),
        "bias": Fact(bias, "in_proj.bias"),
        "conv_bias": Fact(conv_bias, "conv1d.bias"),
    }
    check_names("mamba", config, {*facts, *_KEPT, *_WITHOUT_EFFECT})
    if config.get("dt_rank") == "auto":
        config = {**config, "dt_rank": math.ceil(d / 16)}
    check_facts("mamba", config, facts, tensors)
    found = {name: fact.value for name, fact in facts.items() if name != "d_model"}
    fields = found | fields_of("mamba", config, _KEPT)
    return filled("mamba", Mamba(d, make_config(MambaConfig, fields, "mamba")), tensors)


def has_biases(tensors: Tensors) -> bool:
    """Whether the input and the output projection have biases; both or none."""
    return "in_proj.bias" in tensors or "out_proj.bias" in tensors


def whole_expansion(owner: str, d_inner: int, d_model: int) -> int:
    """Return E / d.

    Raises:
        CheckpointError: it is not whole. No published checkpoint has such a width.
    """
    if d_inner < 1 or d_model < 1 or d_inner % d_model:
        raise CheckpointError(
            f"{owner}: out_proj.weight has shape ({d_model}, {d_inner}), "
            "expected (d, E) with E a multiple of d"
        )
    return d_inner // d_model
