"""The models of hustvl/Vim: Vision Mamba. Our model has its names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ssm_core import DataInfo, make_config
from ssm_core.errors import CheckpointError, ConfigError
from ssm_core.official.options import Fact, check_facts, check_names
from ssm_core.official.tensors import Tensors, listed
from ssm_vision.models.vim import Vim
from ssm_vision.models.vim_config import VimConfig
from ssm_vision.official.strict import load_strictly
from ssm_vision.official.vim_geometry import geometry, one_side

#: option -> the tensor and the axis that say it, and the constructor's default value
_SIZES = {
    "embed_dim": ("norm_f.weight", 0, 192),
    "channels": ("patch_embed.proj.weight", 1, 3),
    "patch_size": ("patch_embed.proj.weight", 2, 16),
    "d_state": ("layers.0.mixer.A_log", 1, 16),
    "num_classes": ("head.weight", 0, 1000),
}
#: final_pool_type -> our pool
_POOLS = {"none": "last", "mean": "mean", "max": "max", "all": "all"}
#: forms of the original that this model does not have
_UNSUPPORTED = ("if_rope", "if_rope_residual", "if_bidirectional", "if_random_token_rank")
_USED = (
    *("depth", "if_cls_token", "use_double_cls_token", "use_middle_cls_token", "stride"),
    *("if_random_cls_token_position", "if_abs_pos_embed", "rms_norm", "bimamba_type", "img_size"),
    *("drop_rate", "drop_path_rate", "norm_epsilon", "final_pool_type", "if_divide_out"),
    *("init_layer_scale", "ssm_cfg", "flip_img_sequences_ratio"),
)
#: Kernels, types, initial values, rotary embedding and decoration: nothing that a loaded model
#: computes depends on them. if_devide_out is swallowed by the original too, which then halves;
#: if_bimamba chooses a bimamba_type, and the tensors say which it was.
_WITHOUT_EFFECT = (
    *("initializer_cfg", "fused_add_norm", "residual_in_fp32", "device", "dtype"),
    *("ft_seq_len", "pt_hw_seq_len", "if_bimamba", "if_devide_out", "drop_block_rate"),
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"),
)
#: of ssm_cfg: initial values and the kernel
_MIXER_WITHOUT_EFFECT = (
    *("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor"),
    *("use_fast_path", "layer_idx", "device", "dtype"),
)
#: without these nothing can be said about the others
_LANDMARKS = ("patch_embed.proj.weight", "norm_f.weight", "layers.0.norm.weight")
_DIRECTIONS = "layers.0.mixer.conv1d_b.weight"


def build(tensors: Tensors, config: Mapping[str, Any]) -> Vim:
    """Build a Vim from an official model's tensors.

    The tensors say all sizes, whether there are class tokens (one stands in the middle unless
    use_middle_cls_token is False), the kind of norm and the directions of the mixers. Image size
    and stride only show in the number of positions. Left out, they are 224 and 16 as in the
    original if that fits, else what fits: the stride that gives these positions at that image size,
    or the smallest image that gives them with that stride.

    Raises:
        ConfigError: a form without a counterpart here (rotary embedding, if_bidirectional,
            bimamba_type v1), or an argument that contradicts the tensors.
        CheckpointError: tensors are missing, left over or misshapen.
    """
    check_names("vim", config, {*_SIZES, *_USED, *_UNSUPPORTED, *_WITHOUT_EFFECT})
    given = dict(config)
    if "patch_size" in given:
        given["patch_size"] = one_side(given["patch_size"])
    _refuse_unsupported(tensors, given)
    missing = [name for name in _LANDMARKS if name not in tensors]
    if missing:
        raise CheckpointError(f"vim: the state dict does not fit: missing {listed(missing)}")
    facts = _facts(tensors)
    check_facts("vim", given, facts, tensors)
    sizes = {name: given.get(name, default) for name, (_, _, default) in _SIZES.items()}
    sizes |= {name: fact.value for name, fact in facts.items()}
    class_token = _class_token(tensors, given)
    image, stride = geometry(tensors, given, sizes["patch_size"], class_token)
    fields = {
        "patch_size": sizes["patch_size"],
        "stride": stride,
        "embed_dim": sizes["embed_dim"],
        "depth": sizes["depth"],
        "class_token": class_token,
        "pool": _pool(given),
        "positions": sizes["if_abs_pos_embed"],
        "mixer": "bimamba" if sizes["bimamba_type"] == "v2" else "mamba",
        "mixer_options": _mixer_options(tensors, given, sizes["embed_dim"], sizes["d_state"]),
        "norm": "rms" if sizes["rms_norm"] else "layer",
        "norm_eps": given.get("norm_epsilon", 1e-5),
        "dropout": given.get("drop_rate", 0.0),
        "drop_path": given.get("drop_path_rate", 0.1),
    }
    info = DataInfo(input_shape=(sizes["channels"], *image), n_outputs=sizes["num_classes"])
    return load_strictly("vim", Vim(make_config(VimConfig, fields, "vim"), info), tensors)


def _refuse_unsupported(tensors: Tensors, given: Mapping[str, Any]) -> None:
    for name in _UNSUPPORTED:
        if given.get(name):
            raise ConfigError(f"vim: {name} is {given[name]!r}, expected False: not supported")
    flipped = given.get("flip_img_sequences_ratio")
    if flipped is not None and flipped > 0:
        raise ConfigError(
            f"vim: flip_img_sequences_ratio is {flipped!r}, expected -1: not supported"
        )
    if given.get("bimamba_type") == "v1" or (
        "layers.0.mixer.A_b_log" in tensors and not any(".conv1d_b." in name for name in tensors)
    ):
        raise ConfigError(
            "vim: bimamba_type is 'v1' (A_b_log without conv1d_b), expected 'v2' or 'none': not "
            "supported"
        )


def _facts(tensors: Tensors) -> dict[str, Fact]:
    """What the tensors that are there say; a missing one is reported when they are loaded."""
    facts = {
        name: Fact(tensors[source].shape[axis], source)
        for name, (source, axis, _) in _SIZES.items()
        if source in tensors and tensors[source].dim() > axis
    }
    last = max(int(m[1]) for m in map(re.compile(r"layers\.(\d+)\.").match, tensors) if m)
    facts["depth"] = Fact(last + 1, f"layers.{last}.norm.weight")
    double = "cls_token_head" in tensors or "cls_token_tail" in tensors
    one = "cls_token" in tensors
    facts["if_cls_token"] = Fact(double or one, "cls_token_head" if double else "cls_token")
    if double or one:
        facts["use_double_cls_token"] = Fact(double, "cls_token_head")
    facts["if_abs_pos_embed"] = Fact("pos_embed" in tensors, "pos_embed")
    facts["rms_norm"] = Fact("norm_f.bias" not in tensors, "norm_f.bias")
    both = any(".conv1d_b." in name for name in tensors)
    facts["bimamba_type"] = Fact("v2" if both else "none", _DIRECTIONS)
    return facts


def _class_token(tensors: Tensors, given: Mapping[str, Any]) -> str:
    if "cls_token_head" in tensors or "cls_token_tail" in tensors:
        return "double"
    if "cls_token" not in tensors:
        return "none"
    if given.get("use_middle_cls_token", True):
        return "middle"
    return "random" if given.get("if_random_cls_token_position") else "head"


def _pool(given: Mapping[str, Any]) -> str:
    name = given.get("final_pool_type", "none")
    if name not in _POOLS:
        words = " or ".join(repr(word) for word in _POOLS)
        raise ConfigError(f"vim: final_pool_type is {name!r}, expected {words}")
    return _POOLS[name]


def _mixer_options(
    tensors: Tensors, given: Mapping[str, Any], d: int, d_state: int
) -> dict[str, Any]:
    """Options of the mixers; `ssm_cfg` of the original is checked against the tensors."""
    at = "layers.0.mixer."
    facts = {"d_state": Fact(d_state, at + "A_log")}
    for name, source, axis, unit in (
        ("d_conv", "conv1d.weight", 2, 1),
        ("expand", "D", 0, d),
        ("dt_rank", "dt_proj.weight", 1, 1),
    ):
        if at + source in tensors and tensors[at + source].dim() > axis:
            size = tensors[at + source].shape[axis]
            facts[name] = Fact(max(size // unit, 1), at + source)
    facts["conv_bias"] = Fact(at + "conv1d.bias" in tensors, at + "conv1d.bias")
    facts["bias"] = Fact(at + "in_proj.bias" in tensors, at + "in_proj.bias")
    ssm_cfg = given.get("ssm_cfg") or {}
    check_names("vim", ssm_cfg, {*facts, *_MIXER_WITHOUT_EFFECT})
    check_facts("vim", {k: v for k, v in ssm_cfg.items() if v != "auto"}, facts, tensors)
    options: dict[str, Any] = {name: fact.value for name, fact in facts.items()}
    if not any(".conv1d_b." in name for name in tensors):
        return options
    scaled, scale = at + "gamma" in tensors, given.get("init_layer_scale")
    if "init_layer_scale" in given and (scale is not None) != scaled:
        raise ConfigError(
            f"vim: init_layer_scale is {scale!r}, but the state dict has "
            f"{'a' if scaled else 'no'} {at}gamma"
        )
    options["divide_out"] = given.get("if_divide_out", True)
    # overwritten by the tensors
    options["layer_scale"] = (1.0 if scale is None else scale) if scaled else None
    return options
