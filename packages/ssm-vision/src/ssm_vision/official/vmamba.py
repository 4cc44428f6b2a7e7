"""Checkpoints of MzeroMiko/VMamba: the vanilla models and the later s1l* and s2l* ones.

The tensors tell the forms apart: an in_proj with 2 E rows has a gate, one with E rows has none. The
names of the first release (ln_1, self_attention, a norm and a head at the top level) are read too,
and linear maps that were saved as 1x1 convolutions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ssm_core import DataInfo
from ssm_core.config import make_config
from ssm_core.official.axes import Sizes, fit
from ssm_core.official.options import Fact, check_facts, check_names
from ssm_core.official.tensors import Tensors
from ssm_vision.models.vmamba import VMamba
from ssm_vision.models.vmamba_config import VMambaConfig
from ssm_vision.official.strict import load_strictly
from ssm_vision.official.vmamba_names import in_new_names
from ssm_vision.official.vmamba_options import ONLY, WITHOUT_EFFECT, comparable, scan_form

_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")
_OP, _MLP = "layers.0.blocks.0.op.", "layers.0.blocks.0.mlp.fc1.weight"

#: the original's words -> ours
_DOWNSAMPLES = {"v1": "merging", "v2": "conv2x2", "v3": "conv3x3"}
_STEMS = {"v1": "patches", "v2": "convolutions"}
#: arguments that tensors decide -> fields that hold the same value
_FIELDS = {
    "depths": "depths",
    "dims": "dims",
    "patch_size": "patch_size",
    "ssm_d_state": "d_state",
    "ssm_ratio": "ssm_ratio",
    "ssm_conv_bias": "conv_bias",
    "mlp_ratio": "mlp_ratio",
    "posembed": "positions",
}
_KEPT = ("forward_type", "drop_path_rate", "imgsize")
#: the original's defaults
DROP_PATH, IMAGE_SIZE = 0.1, 224


def build(tensors: Tensors, config: Mapping[str, Any]) -> VMamba:
    """Build a VMamba from an official model's tensors."""
    tensors = in_new_names(tensors)
    depths = _depths(tensors)
    sizes = _sizes(tensors, len(depths))
    given = comparable(config, len(depths))
    facts = _facts(tensors, depths, sizes, given)
    check_names("vmamba", config, {*facts, *_KEPT, *ONLY, *WITHOUT_EFFECT})
    check_facts("vmamba", given, facts, tensors)
    form = scan_form(config.get("forward_type"), f"{_OP}in_proj.weight", _gated(tensors))
    found: dict[str, Any] = {name: fact.value for name, fact in facts.items()}
    fields = {
        **{ours: found[name] for name, ours in _FIELDS.items()},
        "dt_rank": None if found["ssm_dt_rank"] == "auto" else found["ssm_dt_rank"],
        "gated": form.gated,
        "float32_scan": form.float32_scan,
        "stem": _STEMS[found["patchembed_version"]],
        "downsample": _DOWNSAMPLES[found["downsample_version"]],
        "drop_path": given.get("drop_path_rate", DROP_PATH),
    }
    pixels = _image_size(tensors, found["patch_size"], given)
    info = DataInfo((found["in_chans"], *pixels), found["num_classes"])
    model = VMamba(make_config(VMambaConfig, fields, "vmamba"), info)
    return load_strictly("vmamba", model, tensors)


def _depths(tensors: Tensors) -> list[int]:
    """Blocks of each stage that has a name."""
    found = {(int(m[1]), int(m[2])) for m in map(_BLOCK.match, tensors) if m}
    stages = [stage for stage, _ in found]
    return [stages.count(stage) for stage in range(max(stages, default=-1) + 1)]


def _gated(tensors: Tensors) -> bool:
    """Whether in_proj makes a z, of the rows that the other projections do not account for."""
    rows, inner = (tensors.get(f"{_OP}{name}") for name in ("in_proj.weight", "Ds"))
    return rows is None or inner is None or 4 * rows.shape[0] != inner.numel()


def _sizes(tensors: Tensors, stages: int) -> Sizes:
    """The sizes of the first block, of the stem and the head, and the widths of the stages."""
    layout = {
        "patch_embed.0.weight": "stem, c, p, p",
        **{f"layers.{i}.blocks.0.norm.weight": _width(i) for i in range(max(stages, 1))},
        f"{_OP}in_proj.weight": "2E, d" if _gated(tensors) else "E, d",
        f"{_OP}conv2d.weight": "E, 1, k, k",
        f"{_OP}dt_projs_weight": "4, E, R",
        f"{_OP}A_logs": "4E, n",
        f"{_OP}Ds": "4E",
        f"{_OP}out_proj.weight": "d, E",
        "classifier.head.weight": "classes, last",
    }
    if _MLP in tensors:
        layout[_MLP] = "h, d"
    return fit("vmamba", {name: tensors[name] for name in layout if name in tensors}, layout)


def _facts(
    tensors: Tensors, depths: list[int], sizes: Sizes, given: Mapping[str, Any]
) -> dict[str, Fact]:
    """What the tensors say, under the names of the original's arguments."""
    d, rank = sizes["d"], sizes["R"]
    dims = [sizes[_width(i)] for i in range(len(depths))]
    automatic = rank == math.ceil(d / 16) and given.get("ssm_dt_rank") != rank
    two_convolutions = "patch_embed.5.weight" in tensors
    down = "layers.0.downsample.1.weight"
    halving = given.get("downsample_version", "v1") if len(depths) == 1 else "v1"
    if down in tensors:
        halving = "v2" if tensors[down].shape[-1] == 2 else "v3"
    return {
        "in_chans": Fact(sizes["c"], "patch_embed.0.weight"),
        "num_classes": Fact(sizes["classes"], "classifier.head.weight"),
        "patch_size": Fact(4 if two_convolutions else sizes["p"], "patch_embed.0.weight"),
        "depths": Fact(depths, f"layers.{len(depths) - 1}.blocks.{depths[-1] - 1}.norm.weight"),
        "dims": Fact(dims, "layers.0.blocks.0.norm.weight"),
        "ssm_d_state": Fact(sizes["n"], f"{_OP}A_logs"),
        "ssm_ratio": Fact(_ratio(sizes["E"], d, given.get("ssm_ratio")), f"{_OP}out_proj.weight"),
        "ssm_dt_rank": Fact("auto" if automatic else rank, f"{_OP}dt_projs_weight"),
        "ssm_conv": Fact(sizes["k"], f"{_OP}conv2d.weight"),
        "ssm_conv_bias": Fact(f"{_OP}conv2d.bias" in tensors, f"{_OP}conv2d.bias"),
        "mlp_ratio": Fact(_ratio(sizes.get("h", 0), d, given.get("mlp_ratio")), _MLP),
        "downsample_version": Fact(halving, down),
        "patchembed_version": Fact("v2" if two_convolutions else "v1", "patch_embed.5.weight"),
        "posembed": Fact("pos_embed" in tensors, "pos_embed"),
    }


def _width(stage: int) -> str:
    """The name of a stage's number of channels: d in the first one."""
    return "d" + "_" * stage


def _ratio(width: int, d: int, given: object) -> float:
    """The given ratio if it makes this width (the original rounds down), else the exact one."""
    fits = isinstance(given, int | float) and int(given * d) == width
    return float(given) if fits else width / d  # type: ignore[arg-type]


def _image_size(tensors: Tensors, patch_size: int, given: Mapping[str, Any]) -> tuple[int, int]:
    """Pixels that the table of positions was made for; without one any size will do."""
    table = tensors.get("pos_embed")
    if table is not None and table.dim() == 4:
        return table.shape[2] * patch_size, table.shape[3] * patch_size
    size = given.get("imgsize", IMAGE_SIZE)
    return (size, size) if isinstance(size, int) else (size[0], size[1])
