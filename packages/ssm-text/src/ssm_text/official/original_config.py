"""The configuration of state-spaces/mamba, `MambaConfig`; older files lack some keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssm_core.errors import ConfigError, UnknownNameError
from ssm_text.mamba_lm import MambaLM
from ssm_text.mamba_lm_blocks import attention_config, mixer_config
from ssm_text.mamba_lm_config import MambaLMConfig
from ssm_text.official.options import (
    changed_options,
    mixer_options,
    refuse,
    renamed,
    required,
    with_whole_expand,
)

OWNER = "state-spaces/mamba"
#: a file says nothing about it
NORM_EPS = 1e-5

LAYERS = {"Mamba1": "mamba", "Mamba2": "mamba2", "Mamba3": "mamba3"}
_STEP_SIZES = ("dt_min", "dt_max", "dt_init_floor")
KEPT = {
    "mamba": ("d_state", "d_conv", "expand", "dt_rank", "conv_bias", "bias", *_STEP_SIZES),
    "mamba2": (
        *("d_state", "d_conv", "conv_init", "expand", "headdim", "d_ssm", "ngroups"),
        *("A_init_range", "D_has_hdim", "rmsnorm", "norm_before_gate", "dt_limit", "bias"),
        *("conv_bias", "chunk_size", *_STEP_SIZES),
    ),
    "mamba3": (
        *("d_state", "expand", "headdim", "ngroups", "rope_fraction", "A_floor"),
        *("is_outproj_norm", "chunk_size", *_STEP_SIZES),
    ),
}
#: initial values, kernels, caches and processes: nothing that a loaded model computes
_IGNORED = (
    *("dt_init", "dt_scale", "use_fast_path", "use_mem_eff_path", "layer_idx", "device", "dtype"),
    *("process_group", "sequence_parallel", "mimo_rank", "is_mimo"),
)
#: what the original takes where ours goes by the width
_DEFAULTS = {"mamba2": {"headdim": 64}, "mamba3": {"headdim": 64}}
_ATTENTION = {
    "num_heads": "n_heads",
    "num_heads_kv": "n_heads_kv",
    "head_dim": "headdim",
    "d_conv": "d_conv",
    "rotary_emb_dim": "rotary_dim",
    "rotary_emb_base": "rotary_base",
    "rotary_emb_interleaved": "rotary_interleaved",
    "qkv_proj_bias": "qkv_bias",
    "out_proj_bias": "out_bias",
}
#: what the original can have beside, and how our layer is
_FIXED_ATTENTION = {"causal": True, "mlp_dim": 0, "softmax_scale": None}
_NAMES = {
    "vocab_size": "vocab_size",
    "d_intermediate": "mlp_hidden",
    "residual_in_fp32": "residual_in_fp32",
    "tie_embeddings": "tie_embeddings",
    "pad_vocab_size_multiple": "pad_vocab_size_multiple",
}


def read(config: Mapping[str, Any]) -> MambaLMConfig:
    """Read the content of a config.json."""
    required(OWNER, config, ("d_model", "n_layer", "vocab_size"))
    given = dict(config.get("ssm_cfg") or {})
    layer = given.pop("layer", "Mamba1")
    if layer not in LAYERS:
        raise UnknownNameError.of("ssm_cfg layer", str(layer), LAYERS)
    mixer = LAYERS[layer]
    if given.get("is_mimo"):
        raise ConfigError(f"{OWNER}: ssm_cfg has is_mimo, expected a SISO model")
    options = mixer_options(f"{OWNER} ssm_cfg", given, KEPT[mixer], _IGNORED)
    options.pop("chunk_size", None)  # theirs is for a GPU, and changes nothing but time
    return MambaLMConfig(
        d_model=config["d_model"],
        n_layers=config["n_layer"],
        mixer=mixer,  # type: ignore[arg-type]
        mixer_options=with_whole_expand(_DEFAULTS.get(mixer, {}) | options, config["d_model"]),
        norm="rms" if config.get("rms_norm", True) else "layer",
        norm_eps=NORM_EPS,
        attention_layers=tuple(config.get("attn_layer_idx") or ()),
        attention_options=_read_attention(config),
        **renamed(config, _NAMES),
    )


def write(model: MambaLM) -> dict[str, Any]:
    """The content of a config.json for a model of ours.

    Raises:
        ConfigError: an option that the original does not have.
    """
    config = model.config
    options = changed_options(model)
    if "d_inner" in options:
        options["expand"] = options.pop("d_inner") / config.d_model
    # ours goes by the width where the original takes 64
    if config.mixer in _DEFAULTS:
        options["headdim"] = mixer_config(config).sizes(config.d_model).headdim
    unknown = [name for name in options if name not in KEPT[config.mixer]]
    if config.norm_eps != NORM_EPS:
        unknown.append(f"norm_eps = {config.norm_eps}")
    refuse(OWNER, unknown)
    layer = next(name for name, mixer in LAYERS.items() if mixer == config.mixer)
    return {
        "d_model": config.d_model,
        "d_intermediate": config.mlp_hidden,
        "n_layer": config.n_layers,
        "vocab_size": model.vocab_size,
        "ssm_cfg": {"layer": layer, **options},
        "attn_layer_idx": list(config.attention_layers),
        "attn_cfg": _write_attention(config),
        "rms_norm": config.norm == "rms",
        "residual_in_fp32": config.residual_in_fp32,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": config.pad_vocab_size_multiple,
        "tie_embeddings": config.tie_embeddings,
    }


def _read_attention(config: Mapping[str, Any]) -> dict[str, Any]:
    if not config.get("attn_layer_idx"):
        return {}
    given = {"causal": False} | dict(config.get("attn_cfg") or {})
    names = [*_ATTENTION, *_FIXED_ATTENTION]
    options = mixer_options(f"{OWNER} attn_cfg", given, names, _IGNORED)
    for name, value in _FIXED_ATTENTION.items():
        if options.get(name, value) != value:
            raise ConfigError(
                f"{OWNER}: attn_cfg has {name} = {options[name]!r}, expected {value!r}"
            )
    return renamed(options, _ATTENTION)


def _write_attention(config: MambaLMConfig) -> dict[str, Any]:
    if not config.attention_layers:
        return {}
    options = attention_config(config)
    return {"causal": True} | {name: getattr(options, own) for name, own in _ATTENTION.items()}
