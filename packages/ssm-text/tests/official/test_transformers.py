"""Models of transformers at many small configurations, each read in both formats.

transformers computes parts in float32 whatever the type, so nothing here can be closer than that.
"""

from __future__ import annotations

import logging

import pytest
import torch

from ssm_text import from_official

COMMON = {"vocab_size": 37, "num_hidden_layers": 2}
MAMBA = [
    {"hidden_size": 20},
    {"hidden_size": 16, "tie_word_embeddings": False, "use_bias": True},
    {"hidden_size": 17, "expand": 1, "use_conv_bias": False, "time_step_rank": 3},
    {"hidden_size": 12, "expand": 3, "conv_kernel": 2, "state_size": 5, "time_step_rank": 7},
    {"hidden_size": 24, "layer_norm_epsilon": 0.1, "residual_in_fp32": False},
]
MAMBA2 = [
    {"hidden_size": 24, "num_heads": 4, "head_dim": 12, "n_groups": 1},
    {"hidden_size": 24, "num_heads": 4, "head_dim": 12, "n_groups": 2, "use_bias": True},
    {"hidden_size": 9, "num_heads": 3, "head_dim": 3, "n_groups": 3, "expand": 1, "chunk_size": 4},
    {
        **{"hidden_size": 10, "num_heads": 6, "head_dim": 5, "n_groups": 2, "expand": 3},
        **{"state_size": 7, "conv_kernel": 3, "use_conv_bias": False, "tie_word_embeddings": True},
    },
    {
        **{"hidden_size": 16, "num_heads": 2, "head_dim": 16, "n_groups": 1, "state_size": 8},
        **{"time_step_limit": (0.1, 0.7), "layer_norm_epsilon": 0.1, "chunk_size": 16},
    },
]


@pytest.fixture(scope="module")
def transformers():
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

    return {"mamba": (MambaConfig, MambaForCausalLM), "mamba2": (Mamba2Config, Mamba2ForCausalLM)}


def moved(model):
    """Every parameter off its initial value, decays and step sizes within what a model learns."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("A_log"):
                parameter.uniform_(-1, 1.5)
            elif name.endswith(("dt_bias", "dt_proj.bias")):
                parameter.uniform_(-3, 1)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def original(kind, config, state_dict):
    """The tensors and the configuration as state-spaces/mamba would have written them."""
    names = {"state_size": "d_state", "conv_kernel": "d_conv", "expand": "expand"}
    names |= {"use_bias": "bias", "use_conv_bias": "conv_bias"}
    if kind == "mamba":
        names["time_step_rank"] = "dt_rank"
    else:
        names |= {"head_dim": "headdim", "n_groups": "ngroups", "time_step_limit": "dt_limit"}
    layer = {"mamba": "Mamba1", "mamba2": "Mamba2"}[kind]
    written = {
        "d_model": config["hidden_size"],
        "n_layer": config["num_hidden_layers"],
        "vocab_size": config["vocab_size"] - 2,  # and rounded up, to what it was
        "pad_vocab_size_multiple": config["vocab_size"],
        "ssm_cfg": {"layer": layer} | {new: config[old] for old, new in names.items()},
        "tie_embeddings": config["tie_word_embeddings"],
        "residual_in_fp32": config["residual_in_fp32"],
        "something_new": 1,
    }
    embedding = "backbone.embedding.weight"
    return {
        embedding if name == "backbone.embeddings.weight" else name: value
        for name, value in state_dict.items()
    }, written


@pytest.mark.parametrize(
    ("kind", "options"), [("mamba", o) for o in MAMBA] + [("mamba2", o) for o in MAMBA2]
)
@torch.no_grad()
def test_same_logits(transformers, kind, options):
    torch.manual_seed(0)
    config_type, model_type = transformers[kind]
    theirs = moved(model_type(config_type(**COMMON, **options)))
    config, state_dict = theirs.config.to_dict(), theirs.state_dict()
    ids = torch.randint(35, (2, 21))
    expected = theirs(ids, use_cache=False).logits
    scale = expected.abs().max()

    ours = from_official(state_dict, config)
    assert (ours(ids) - expected).abs().max() <= 1e-5 * scale
    state = ours.initial_state(2)
    for t in range(ids.shape[1]):
        logits, state = ours.step(ids[:, t], state)
        assert (logits - expected[:, t]).abs().max() <= 1e-5 * scale

    if config["layer_norm_epsilon"] == 1e-5:  # the other format cannot say it
        other = from_official(*original(kind, config, state_dict))
        assert other.vocab_size == 35
        assert (other(ids) - expected).abs().max() <= 1e-5 * scale


@torch.no_grad()
def test_a_wrong_option_would_be_seen(transformers):
    """The comparison above is not blind."""
    torch.manual_seed(0)
    config_type, model_type = transformers["mamba2"]
    theirs = moved(model_type(config_type(**COMMON, **MAMBA2[-1])))
    ids = torch.randint(35, (2, 21))
    expected = theirs(ids, use_cache=False).logits
    for change in (
        {"layer_norm_epsilon": 0.11},
        {"time_step_limit": [0.1, 0.65]},
        {"n_groups": 2, "state_size": 4},
    ):
        ours = from_official(theirs.state_dict(), theirs.config.to_dict() | change)
        assert (ours(ids) - expected).abs().max() > 1e-4 * expected.abs().max()
