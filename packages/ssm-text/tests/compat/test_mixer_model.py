"""`MixerModel`, `create_block` and `_init_weights` of mamba_ssm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ssm_core.compat.mamba import Mamba
from ssm_core.compat.mamba2 import Mamba2
from ssm_core.compat.mamba3 import Mamba3
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_kernels.compat.layer_norm import RMSNorm
from ssm_text.compat.config import MambaConfig
from ssm_text.compat.lm_head import MambaLMHeadModel
from ssm_text.compat.mha import MHA
from ssm_text.compat.mixer_model import MixerModel, create_block, init_weights
from ssm_text.compat.mlp import GatedMLP


def test_parts_of_a_block() -> None:
    block = create_block(64, 0, layer_idx=4, norm_epsilon=1e-3)
    assert type(block.mixer) is Mamba
    assert (block.layer_idx, block.mixer.layer_idx) == (4, 4)
    assert type(block.norm) is nn.LayerNorm
    assert (block.norm.eps, block.mlp) == (1e-3, None)
    options = {"layer": "Mamba2", "headdim": 32}
    block = create_block(64, 100, options, rms_norm=True, dtype=torch.bfloat16)
    assert type(block.mixer) is Mamba2
    assert block.mixer.headdim == 32
    assert type(block.norm2) is RMSNorm
    assert block.mlp.fc1.weight.shape == (256, 64)
    assert {block.mlp.fc2.weight.dtype, block.norm.weight.dtype} == {torch.bfloat16}
    assert options == {"layer": "Mamba2", "headdim": 32}
    block = create_block(64, 0, {"layer": "Mamba3", "d_state": 8}, layer_idx=2)
    assert type(block.mixer) is Mamba3
    assert (block.mixer.d_state, block.mixer.layer_idx) == (8, 2)
    attention = {"num_heads": 4, "causal": True}
    block = create_block(64, 0, attn_layer_idx=[1], attn_cfg=attention, layer_idx=1)
    assert type(block.mixer) is MHA


def test_layers_that_are_not_there() -> None:
    with pytest.raises(UnknownNameError, match="Mamba1"):
        create_block(64, 0, {"layer": "Mamba"})


@pytest.mark.parametrize("d_intermediate", [0, 128])
def test_initial_values(d_intermediate: int) -> None:
    config = MambaConfig(d_model=64, d_intermediate=d_intermediate, n_layer=3, vocab_size=500)
    backbone = MixerModel(64, 3, d_intermediate, 500)
    whole = MambaLMHeadModel(config)
    for model, residuals in ((backbone, 1 + bool(d_intermediate)), (whole.backbone, 1)):
        assert 0.018 < model.embedding.weight.std() < 0.022
        for layer in model.layers:
            last = [(layer.mixer.out_proj.weight, 128)]
            last += [(layer.mlp.fc2.weight, 128)] if d_intermediate else []
            for weight, fan_in in last:
                bound = 1 / math.sqrt(fan_in * residuals * 3)
                assert 0.97 * bound < weight.abs().max() <= bound
            dt = nn.functional.softplus(layer.mixer.dt_proj.bias)
            assert 0.9e-3 < dt.min() < dt.max() < 0.101  # not set to zero
            first = layer.mixer.in_proj.weight
            assert 0.97 / 8 < first.abs().max() <= 1 / 8  # not divided


def test_initializer_options() -> None:
    model = MixerModel(
        64, 4, 0, 500, initializer_cfg={"initializer_range": 0.5, "rescale_prenorm_residual": False}
    )
    assert 0.45 < model.embedding.weight.std() < 0.55
    bound = 1 / math.sqrt(128)
    assert model.layers[0].mixer.out_proj.weight.abs().max() > 0.97 * bound


def test_init_weights_obeys_marks() -> None:
    kept, zeroed = nn.Linear(4, 4), nn.Linear(4, 4)
    kept.bias._no_reinit = True
    for module in (kept, zeroed):
        init_weights(module, n_layer=2)
    assert kept.bias.any()
    assert not zeroed.bias.any()


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 129_135_360),
        ({"ssm_cfg": {"layer": "Mamba2"}, "pad_vocab_size_multiple": 16}, 128_989_632),
    ],
)
def test_published_sizes(options: dict[str, object], parameters: int) -> None:
    """mamba-130m and mamba2-130m, without memory for them."""
    model = MambaLMHeadModel(MambaConfig(d_model=768, n_layer=24, **options), device="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_model_is_its_blocks_and_the_last_norm() -> None:
    model = MixerModel(16, 2, 20, 11, rms_norm=True, fused_add_norm=True, residual_in_fp32=True)
    ids = torch.randint(11, (2, 5))
    x = model.embedding(ids)
    for block in model.layers:
        x = x + block.mixer(block.norm(x))
        x = x + block.mlp(block.norm2(x))
    torch.testing.assert_close(model(ids), model.norm_f(x))


def test_gated_mlp() -> None:
    mlp = GatedMLP(6, 5, 3, activation=torch.tanh, bias=True, multiple_of=4)
    assert mlp.fc1.weight.shape == (16, 6)
    x = torch.randn(2, 6)
    first = x @ mlp.fc1.weight.T + mlp.fc1.bias
    expected = (first[:, :8] * first[:, 8:].tanh()) @ mlp.fc2.weight.T + mlp.fc2.bias
    torch.testing.assert_close(mlp(x), expected)
    assert GatedMLP(96).fc2.weight.shape == (96, 256)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "causal=False"),
        ({"causal": True, "mlp_dim": 8}, "mlp_dim=8"),
        ({"causal": True, "softmax_scale": 0.1}, r"softmax_scale=0\.1"),
        ({"causal": True, "num_heads_kv": 3}, "n_heads_kv is 3"),
    ],
)
def test_attention_that_is_not_there(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MHA(8, 2, **options)


def test_attention_needs_a_number_for_its_cache() -> None:
    from ssm_core.compat.cache import InferenceParams

    with pytest.raises(ConfigError, match="layer_idx is None"):
        MHA(8, 2, causal=True)(torch.zeros(1, 2, 8), inference_params=InferenceParams(3, 1))
