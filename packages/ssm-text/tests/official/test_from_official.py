from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from ssm_core.errors import CheckpointError, ConfigError, UnknownNameError
from ssm_core.sizes import apply_sizes
from ssm_text import MambaLM, MambaLMConfig, from_official
from ssm_text.official import to_official
from ssm_text.official.config import read_config
from ssm_text.presets import preset

ORIGINAL = {"d_model": 8, "n_layer": 2, "vocab_size": 11}
HUGGINGFACE = {"model_type": "mamba", "hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 16}
HEAD, EMBEDDING = "lm_head.weight", "backbone.embedding.weight"


def make(**options):
    torch.manual_seed(0)
    return MambaLM(MambaLMConfig(**({"d_model": 8, "n_layers": 2, "vocab_size": 11} | options)))


def saved(**options):
    """A state dict of its own memory, with the tied head in it as the original writes it."""
    return {k: v.clone() for k, v in make(**options).state_dict().items()}


@pytest.mark.parametrize("format", ["official", "huggingface"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tie_embeddings": False, "mixer_options": {"bias": True, "conv_bias": False}},
        {"mixer_options": {"d_state": 4, "expand": 3, "dt_rank": 2}, "residual_in_fp32": False},
        {"mixer": "mamba2", "mixer_options": {"headdim": 4, "ngroups": 2, "dt_limit": (0.1, 2.0)}},
        {"mixer": "mamba2", "pad_vocab_size_multiple": 16},
    ],
)
@torch.no_grad()
def test_there_and_back(format, options):
    model = make(**options)
    tensors, config = to_official(model, format)
    assert (HEAD in tensors) != model.config.tie_embeddings
    config = json.loads(json.dumps(config))
    again = from_official(tensors, config)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    ids = torch.randint(11, (2, 5))
    assert torch.equal(again(ids), model(ids))
    assert again.training is False
    assert again.backbone.layers[0].mixer.config.bias == model.backbone.layers[0].mixer.config.bias


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "layer"},
        {"mlp_hidden": 5},
        {"mixer": "mamba3", "mixer_options": {"rope_fraction": 1.0}},
        {"mixer": "mamba2", "mixer_options": {"d_ssm": 8, "headdim": 4, "D_has_hdim": True}},
        {"mixer": "mamba2", "mixer_options": {"rmsnorm": False}},
        {
            **{"mixer": "mamba2", "attention_layers": (1,)},
            "attention_options": {"n_heads": 2, "d_conv": 3, "rotary_dim": 2, "qkv_bias": False},
        },
    ],
)
def test_what_transformers_does_not_have(options):
    model = make(**options)
    again = from_official(*to_official(model, "official"))
    ids = torch.randint(11, (2, 5))
    torch.testing.assert_close(again(ids), model(ids), rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"transformers: "):
        to_official(model, "huggingface")


def test_what_the_original_does_not_have():
    with pytest.raises(ConfigError, match=r"no norm_eps = 0\.1"):
        to_official(make(norm_eps=0.1), "official")
    with pytest.raises(ConfigError, match="no learnable_init_states"):
        to_official(make(mixer="mamba2", mixer_options={"learnable_init_states": True}))
    pruned = apply_sizes(make(), {"backbone.layers.0.mixer": {"d_inner": 8}})
    with pytest.raises(ConfigError, match="different sizes"):
        to_official(pruned, "official")
    with pytest.raises(ConfigError, match="format is 'gguf'"):
        to_official(make(), "gguf")


def test_tensors_are_copied_and_marks_stay():
    tensors = saved()
    before = tensors[EMBEDDING].clone()
    model = from_official(tensors, ORIGINAL)
    with torch.no_grad():
        model.backbone.embedding.weight.zero_()
    assert torch.equal(tensors[EMBEDDING], before)
    assert set(tensors) == set(saved())
    assert model.lm_head.weight is model.backbone.embedding.weight
    assert model.backbone.layers[0].mixer.A_log._no_weight_decay
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: name.removeprefix("backbone."),
        lambda name: name.removeprefix("backbone.").replace("embedding.", "embeddings."),
    ],
)
def test_other_prefixes(rename):
    tensors = saved()
    model = from_official({rename(name): value for name, value in tensors.items()}, ORIGINAL)
    for name, value in model.state_dict().items():
        assert torch.equal(value, tensors[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types(dtype):
    model = from_official(saved(), ORIGINAL, dtype=dtype)
    mixer = model.backbone.layers[0].mixer
    careful = torch.float64 if dtype is torch.float64 else torch.float32
    for parameter in (mixer.A_log, mixer.D, mixer.dt_proj.bias):
        assert parameter.dtype is careful
    for parameter in (mixer.in_proj.weight, mixer.dt_proj.weight, model.lm_head.weight):
        assert parameter.dtype is dtype
    ids = torch.randint(11, (2, 5))
    reference = from_official(saved(), ORIGINAL)
    with torch.no_grad():
        expected = reference(ids)
        logits, state = model(ids[:, :4], return_state=True)
        last, _ = model.step(ids[:, 4], state)
    assert logits.dtype is dtype
    near = {"rtol": 0.05, "atol": 0.05 * float(expected.abs().max())}
    torch.testing.assert_close(logits.float(), expected[:, :4], **near)
    torch.testing.assert_close(last.float(), expected[:, 4], **near)


def test_every_problem_in_one_line():
    tensors = saved()
    tensors["backbone.layers.2.norm.weight"] = torch.zeros(8)
    tensors["backbone.norm_f.weight"] = torch.zeros(9)
    tensors["backbone.layers.1.mixer.D"] = torch.zeros(16, dtype=torch.int64)
    del tensors["backbone.layers.0.mixer.A_log"]
    with pytest.raises(CheckpointError) as raised:
        from_official(tensors, ORIGINAL)
    for part in (
        "missing backbone.layers.0.mixer.A_log",
        "unexpected backbone.layers.2.norm.weight",
        "backbone.norm_f.weight has shape (9,), expected (8,)",
        "backbone.layers.1.mixer.D is torch.int64",
    ):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_options_that_contradict_the_tensors():
    with pytest.raises(CheckpointError, match=r"A_log has shape \(16, 16\), expected \(16, 8\)"):
        from_official(saved(), ORIGINAL | {"ssm_cfg": {"d_state": 8}})
    with pytest.raises(CheckpointError, match=r"embedding.weight has shape \(16, 8\)"):
        from_official(saved(), ORIGINAL | {"vocab_size": 17})


def test_tied_heads():
    untied = saved(tie_embeddings=False)
    with pytest.raises(CheckpointError, match="the configuration ties them"):
        from_official(untied, ORIGINAL)
    assert from_official(untied, ORIGINAL | {"tie_embeddings": False}) is not None
    del untied[HEAD]
    with pytest.raises(CheckpointError, match=f"missing {HEAD}"):
        from_official(untied, ORIGINAL | {"tie_embeddings": False})


def test_published_configurations():
    old = {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": True}
    config = read_config(old | {"fused_add_norm": True, "pad_vocab_size_multiple": 8})
    assert (config.mixer, config.tie_embeddings, config.padded(50277)) == ("mamba", True, 50280)
    new = old | {"ssm_cfg": {"layer": "Mamba2"}, "pad_vocab_size_multiple": 16, "d_intermediate": 0}
    config = read_config(new | {"attn_layer_idx": [], "attn_cfg": {}, "tie_embeddings": True})
    assert (config.mixer, config.padded(50277)) == ("mamba2", 50288)


def test_published_hybrid():
    config = {"d_model": 2560, "d_intermediate": 0, "n_layer": 64, "vocab_size": 50277}
    config |= {"ssm_cfg": {"layer": "Mamba2"}, "attn_layer_idx": [9, 18, 27, 36, 45, 56]}
    attention = {"causal": True, "d_conv": 4, "head_dim": 128, "num_heads": 30}
    attention |= {"out_proj_bias": False, "qkv_proj_bias": False, "rotary_emb_dim": 64}
    config |= {"attn_cfg": attention, "pad_vocab_size_multiple": 16, "tie_embeddings": True}
    expected = preset("mamba2attn-2.7b")
    read = read_config(config)
    assert read == replace(expected, mixer_options=read.mixer_options)
    assert read.mixer_options == {"headdim": 64, "expand": 2}
    with torch.device("meta"):
        layer = MambaLM(read).backbone.layers[9].mixer
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes == {
        "in_proj.weight": (11520, 2560),
        "conv1d.weight": (11520, 1, 4),
        "conv1d.bias": (11520,),
        "out_proj.weight": (2560, 3840),
    }


@pytest.mark.parametrize("other", [{"causal": False}, {"mlp_dim": 256}, {"softmax_scale": 1.0}])
def test_attention_that_differs(other):
    attention = {"num_heads": 2, "causal": True} | other
    config = ORIGINAL | {"attn_layer_idx": [1], "attn_cfg": attention}
    with pytest.raises(ConfigError, match=f"attn_cfg has {next(iter(other))} ="):
        from_official(saved(), config)


@pytest.mark.parametrize("infinity", [math.inf, {"__float__": "Infinity"}])
def test_infinite_numbers(infinity):
    config = {"model_type": "mamba2", "hidden_size": 64, "num_heads": 2, "num_hidden_layers": 1}
    config |= {"vocab_size": 9, "n_groups": 1}
    read = read_config(json.loads(json.dumps(config | {"time_step_limit": [0.0, infinity]})))
    assert read.mixer_options["dt_limit"] == [0.0, math.inf]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "config has the keys none"),
        ("mamba", "config is a str, expected the content of a config.json"),
        ({"d_model": 8}, "config lacks n_layer, vocab_size"),
        (ORIGINAL | {"ssm_cfg": {"layer": "Mamba3", "is_mimo": True}}, "is_mimo"),
        (ORIGINAL | {"norm_epsilon": 1, "n_layer": 0}, "n_layers is 0"),
        (ORIGINAL | {"d_model": None}, "d_model is None"),
        (ORIGINAL | {"ssm_cfg": {"expand": "2x"}}, "expand is '2x'"),
        (ORIGINAL | {"ssm_cfg": {"dt_max": {"__float__": "big"}}}, "'big', expected a number"),
        (HUGGINGFACE | {"model_type": "falcon_mamba"}, "model_type is 'falcon_mamba'"),
        (HUGGINGFACE | {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        (HUGGINGFACE | {"model_type": "mamba2", "num_heads": 3}, "num_heads . head_dim = 3 . 64"),
    ],
)
def test_configurations_of_other_models(config, message):
    with pytest.raises(ConfigError, match=message) as raised:
        from_official(saved(), config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("ssm_cfg", [{"layer": "Mamba4"}, {"d_stat": 8}])
def test_unknown_words(ssm_cfg):
    with pytest.raises(UnknownNameError, match=r"did you mean '(Mamba3|d_state)'"):
        from_official(saved(), ORIGINAL | {"ssm_cfg": ssm_cfg})
