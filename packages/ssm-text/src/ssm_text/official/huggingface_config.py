"""The configurations of transformers, `MambaConfig` and `Mamba2Config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssm_core.errors import ConfigError
from ssm_text.mamba_lm import MambaLM
from ssm_text.mamba_lm_blocks import mixer_config
from ssm_text.mamba_lm_config import MambaLMConfig
from ssm_text.official.options import (
    changed_options,
    refuse,
    renamed,
    required,
    with_whole_expand,
)

OWNER = "transformers"

#: the values that a file may leave out
DEFAULTS: dict[str, dict[str, Any]] = {
    "mamba": {
        "hidden_size": 768,
        "num_hidden_layers": 32,
        "vocab_size": 50280,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    "mamba2": {
        "hidden_size": 4096,
        "num_hidden_layers": 64,
        "vocab_size": 32768,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": False,
        "n_groups": 8,
        "num_heads": 128,
        "head_dim": 64,
    },
}
_MODEL = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "vocab_size": "vocab_size",
    "layer_norm_epsilon": "norm_eps",
    "residual_in_fp32": "residual_in_fp32",
    "tie_word_embeddings": "tie_embeddings",
}
_MIXER = {
    "state_size": "d_state",
    "conv_kernel": "d_conv",
    "expand": "expand",
    "use_bias": "bias",
    "use_conv_bias": "conv_bias",
    "time_step_min": "dt_min",
    "time_step_max": "dt_max",
    "time_step_floor": "dt_init_floor",
}
_OWN = {
    "mamba": {"time_step_rank": "dt_rank"},
    "mamba2": {
        "head_dim": "headdim",
        "n_groups": "ngroups",
        "time_step_limit": "dt_limit",
        # its gated norm has the same
        "layer_norm_epsilon": "norm_eps",
    },
}


def read(config: Mapping[str, Any]) -> MambaLMConfig:
    """Read the content of a config.json."""
    mixer = _model_type(config)
    required(OWNER, config, ("hidden_size", "num_hidden_layers", "vocab_size"))
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ConfigError(f"{OWNER}: hidden_act is {config['hidden_act']!r}, expected 'silu'")
    full = DEFAULTS[mixer] | dict(config)
    if mixer == "mamba2":
        _check_heads(full)
    options = renamed(full, _MIXER | _OWN[mixer])
    return MambaLMConfig(
        mixer=mixer,  # type: ignore[arg-type]
        mixer_options=with_whole_expand(options, full["hidden_size"]),
        pad_vocab_size_multiple=1,  # vocab_size is padded already
        **renamed(full, _MODEL),
    )


def write(model: MambaLM) -> dict[str, Any]:
    """The content of a config.json for a model of ours.

    Raises:
        ConfigError: an option that transformers does not have.
    """
    config, options = model.config, changed_options(model)
    if config.mixer not in DEFAULTS:
        raise ConfigError(f"{OWNER}: has no language model of {config.mixer}, expected mamba(2)")
    mixer = mixer_config(config)
    names = _MIXER | _OWN[config.mixer]
    # theirs is for a GPU and is not read: it changes nothing but time
    unknown = [name for name in options if name not in (*names.values(), "chunk_size")]
    unknown += [f"norm = {config.norm}"] if config.norm != "rms" else []
    unknown += [f"mlp_hidden = {config.mlp_hidden}"] if config.mlp_hidden else []
    unknown += ["attention_layers"] if config.attention_layers else []
    values = {name: getattr(mixer, field) for name, field in names.items()}
    if config.mixer == "mamba2":
        if mixer.norm_eps != config.norm_eps:
            unknown.append(f"norm_eps = {mixer.norm_eps} of the mixers alone")
        sizes = mixer.sizes(config.d_model)
        values |= {"num_heads": sizes.heads, "head_dim": sizes.headdim}
        values["chunk_size"] = mixer.chunk_size or 256
    refuse(OWNER, unknown)
    return {
        "architectures": ["MambaForCausalLM" if config.mixer == "mamba" else "Mamba2ForCausalLM"],
        "model_type": config.mixer,
        "hidden_act": "silu",
        **values,
        **{name: getattr(config, field) for name, field in _MODEL.items()},
        "vocab_size": config.padded(model.vocab_size),
    }


def _model_type(config: Mapping[str, Any]) -> str:
    """ "mamba" or "mamba2"; older files may not say it."""
    kind = config.get("model_type", "mamba2" if "num_heads" in config else "mamba")
    if kind not in DEFAULTS:
        raise ConfigError(
            f"{OWNER}: model_type is {kind!r}, expected 'mamba' or 'mamba2'; other models differ "
            "in what they compute"
        )
    return str(kind)


def _check_heads(config: Mapping[str, Any]) -> None:
    heads, channels = config["num_heads"], config["head_dim"]
    width = config["hidden_size"] * config.get("expand", 2)
    if heads * channels != width:
        raise ConfigError(
            f"{OWNER}: num_heads * head_dim = {heads} * {channels} is {heads * channels}, "
            f"expected expand * hidden_size = {width:g}"
        )
