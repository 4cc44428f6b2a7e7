"""Checkpoints of NVlabs/MambaVision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssm_core import DataInfo
from ssm_core.errors import CheckpointError, ConfigError
from ssm_core.official.options import Fact, check_facts, check_names
from ssm_core.official.tensors import Tensors, listed
from ssm_vision.models.mambavision import LEVELS, MIXED_FROM, MambaVision
from ssm_vision.models.mambavision_config import MambaVisionConfig
from ssm_vision.official.strict import load_strictly

OWNER = "mambavision"
#: what the published models of a width have and their tensors do not say: heads, windows, drop path
PUBLISHED: dict[int, tuple[tuple[int, int], tuple[int, int], float]] = {
    80: ((8, 16), (14, 7), 0.2),
    96: ((8, 16), (14, 7), 0.2),
    128: ((8, 16), (14, 7), 0.3),
    196: ((16, 32), (14, 7), 0.3),
    256: ((16, 32), (16, 8), 0.5),
}
#: arguments of the original constructor that its models do not depend on
WITHOUT_EFFECT = (
    *("resolution", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "model_path"),
    *("url", "hf_hub_id", "input_size", "pool_size", "crop_pct", "crop_mode", "interpolation"),
    *("mean", "std", "license", "arch", "features_only"),
)
#: original argument -> option of ours, for what only training depends on
TRAINING = {
    "drop_path_rate": "drop_path",
    "drop_rate": "dropout",
    "attn_drop_rate": "attention_dropout",
}
_SCALES = ("layer_scale", "layer_scale_conv")
_BN_COUNT = ".num_batches_tracked"
_NEEDED = (
    "patch_embed.conv_down.0.weight",
    "patch_embed.conv_down.3.weight",
    "levels.3.blocks.0.mlp.fc1.weight",
)


def build(tensors: Tensors, config: Mapping[str, Any]) -> MambaVision:
    """Build the model of a state dict; for arguments and errors see `from_official`.

    `config` takes the original constructor's arguments. Only `num_heads` and `window_size` (one
    number per level, or those of levels 2 and 3) change the outputs and are in no tensor: left out,
    they are those of the published model of that width for 224 pixels (256 pixels at width 256; the
    published models for 512 need window_size=[8, 8, 32, 16]). Other widths must say them.

    As in the original, the model may lie under "state_dict" or "model", its names may begin with
    "module." or "encoder.", and the counts of BatchNorm may be missing.
    """
    known = {"dim", "in_dim", "depths", "in_chans", "num_classes", "mlp_ratio", "qkv_bias"}
    known |= {"num_heads", "window_size", "qk_scale", *_SCALES, *TRAINING, *WITHOUT_EFFECT}
    check_names(OWNER, config, known)
    if config.get("qk_scale") is not None:
        raise ConfigError(
            f"{OWNER}: qk_scale is {config['qk_scale']!r}, expected None: attention divides by the "
            "square root of a head's width"
        )
    tensors = unwrapped(tensors)
    missing = [name for name in _NEEDED if name not in tensors]
    if missing:
        raise CheckpointError(f"{OWNER}: the state dict does not fit: missing {listed(missing)}")
    facts = _facts(tensors, config)
    # a factor switched on is a number there, and nothing else switches it on
    given = dict(config) | {k: type(config[k]) in (int, float) for k in _SCALES if k in config}
    if "depths" in given:
        given["depths"] = _numbers("depths", given["depths"], LEVELS)
    check_facts(OWNER, given, facts, tensors)
    options = {name: facts[name].value for name in ("dim", "in_dim", "depths", "qkv_bias")}
    options |= _untold(int(tensors["patch_embed.conv_down.3.weight"].shape[0]), config)
    options |= {TRAINING[name]: config[name] for name in TRAINING if name in config}
    options |= {k: float(config.get(k, 1e-5)) if facts[k].value else None for k in _SCALES}
    options["mlp_ratio"] = facts["mlp_ratio"].value
    in_chans, size = tensors[_NEEDED[0]].shape[1], config.get("resolution", 224)
    rows, columns = size if isinstance(size, list | tuple) else (size, size)
    info = DataInfo((in_chans, rows, columns), int(facts["num_classes"].value))  # type: ignore[call-overload]
    model = MambaVision(MambaVisionConfig(**options), info)  # type: ignore[arg-type]
    own = model.state_dict()
    counts = {k: v for k, v in own.items() if k.endswith(_BN_COUNT) and k not in tensors}
    return load_strictly(OWNER, model, tensors | counts)


def unwrapped(tensors: Tensors) -> Tensors:
    """Take the model out of the containers that training scripts write."""
    for container in ("state_dict.", "model."):
        if any(name.startswith(container) for name in tensors):
            tensors = _without(container, tensors)
            break
    if all(name.startswith("module.") for name in tensors):
        tensors = _without("module.", tensors)
    if tensors and min(tensors).startswith("encoder."):
        tensors = _without("encoder.", tensors)
    return tensors


def _without(prefix: str, tensors: Tensors) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _facts(tensors: Tensors, given: Mapping[str, Any]) -> dict[str, Fact]:
    """What the tensors say, under the names of the original constructor."""

    def rows(name: str) -> int:
        return tensors[name].shape[0] if name in tensors else 0

    first, second, fc1 = _NEEDED
    numbers = [{int(k.split(".")[3]) for k in tensors if _in(k, i)} for i in range(LEVELS)]
    depths = tuple(max(found, default=-1) + 1 for found in numbers)
    attention = f"levels.3.blocks.{max(depths[3] - 1, 0)}.mixer.qkv"
    gamma, gamma_conv = "levels.3.blocks.0.gamma_1", "levels.0.blocks.0.gamma"
    hidden, width = tensors[fc1].shape
    ratio = given.get("mlp_ratio", 4.0)
    if not isinstance(ratio, int | float) or int(width * ratio) != hidden:
        ratio = hidden / width + 1e-9  # int() cuts off: no less than the number that is meant
    has_bias = f"{attention}.bias" in tensors or f"{attention}.weight" not in tensors
    return {
        "dim": Fact(rows(second), second),
        "in_dim": Fact(rows(first), first),
        "in_chans": Fact(tensors[first].shape[1], first),
        "depths": Fact(depths, "levels.{i}.blocks.{j}"),
        "num_classes": Fact(rows("head.weight"), "head.weight"),
        "mlp_ratio": Fact(ratio, fc1),
        "qkv_bias": Fact(has_bias, f"{attention}.bias"),
        "layer_scale": Fact(gamma in tensors, gamma),
        "layer_scale_conv": Fact(gamma_conv in tensors, gamma_conv),
    }


def _in(name: str, level: int) -> bool:
    parts = name.split(".")
    return parts[:3] == ["levels", str(level), "blocks"] and parts[3:4] != [] and parts[3].isdigit()


def _untold(dim: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Heads, windows and drop path: as given, or as published for this width."""
    missing = [name for name in ("num_heads", "window_size") if name not in config]
    if missing and dim not in PUBLISHED:
        raise ConfigError(
            f"{OWNER}: {' and '.join(missing)} cannot be told from the tensors and no published "
            f"model has dim {dim}: give the original constructor's value"
        )
    heads, windows, drop_path = PUBLISHED.get(dim, ((1, 1), (14, 7), 0.2))
    options: dict[str, Any] = {"num_heads": heads, "windows": windows, "drop_path": drop_path}
    for name, option in (("num_heads", "num_heads"), ("window_size", "windows")):
        if name in config:
            options[option] = _numbers(name, config[name], LEVELS, 2)[-(LEVELS - MIXED_FROM) :]
    return options


def _numbers(name: str, values: Any, *counts: int) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or len(values) not in counts:
        raise ConfigError(f"{OWNER}: {name} is {values!r}, expected {counts[0]} integers")
    return tuple(values)
