"""Towers: two published models reproduced from their weights, initial values, sizes, errors."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.layers.attention import Attention, AttentionConfig
from ssm_core.layers.bimamba import BiMamba
from ssm_core.layers.mamba import Mamba, MambaConfig
from ssm_core.layers.protocol import SequenceLayer, StateError
from ssm_core.layers.rnn import RNN, RNNConfig
from ssm_core.tower import Tower, TowerConfig

DATA = Path(__file__).parent / "data"


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def tower_keys(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in weights.items() if k.startswith(("layers.", "norm_f."))}


def relative_error(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).abs().max() / expected.abs().max())


class TinyMambaLM:
    """Embedding, tower and head with the weights of a tiny published-format language model."""

    def __init__(self) -> None:
        self.tensors, metadata = golden("hf_mamba")
        config = json.loads(metadata["config"])
        weights = strip(self.tensors, "sd.backbone.")
        mixer = MambaConfig(
            d_state=config["state_size"],
            d_conv=config["conv_kernel"],
            dt_rank=config["time_step_rank"],
        )
        d_model = config["hidden_size"]
        self.tower = Tower(
            partial(Mamba, d_model, mixer), TowerConfig(d_model, config["num_hidden_layers"])
        )
        self.tower.load_state_dict(tower_keys(weights))
        self.embedding = weights["embeddings.weight"]
        self.head = self.tensors["sd.lm_head.weight"]

    def logits(self, tokens: Tensor) -> Tensor:
        return self.tower(self.embedding[tokens]) @ self.head.T


@torch.no_grad()
def test_language_model_has_the_published_logits() -> None:
    model = TinyMambaLM()
    logits = model.logits(model.tensors["x"])
    assert relative_error(logits, model.tensors["y"]) < 1e-5


@torch.no_grad()
def test_language_model_steps_to_the_published_text() -> None:
    model = TinyMambaLM()
    expected = model.tensors["greedy"]
    tokens = model.tensors["x"][:1, :5]
    y, state = model.tower(model.embedding[tokens], return_state=True)
    y_t = y[:, -1]
    while tokens.shape[1] < expected.shape[1]:
        token = (y_t @ model.head.T).argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, token], dim=1)
        y_t, state = model.tower.step(model.embedding[token.squeeze(1)], state)
    assert torch.equal(tokens, expected)


@torch.no_grad()
def test_vision_mamba_has_the_published_logits() -> None:
    tensors, metadata = golden("vim_mid")
    options, weights = json.loads(metadata["kw"]), strip(tensors, "sd.")
    d_model = options["embed_dim"]
    tower = Tower(lambda: BiMamba(d_model), TowerConfig(d_model, options["depth"]))
    tower.load_state_dict(tower_keys(weights))

    patches = F.conv2d(
        tensors["x"],
        weights["patch_embed.proj.weight"],
        weights["patch_embed.proj.bias"],
        stride=options["stride"],
    )
    tokens = patches.flatten(2).transpose(1, 2)
    middle = tokens.shape[1] // 2
    cls = weights["cls_token"].expand(len(tokens), -1, -1)
    tokens = torch.cat([tokens[:, :middle], cls, tokens[:, middle:]], dim=1)
    features = tower(tokens + weights["pos_embed"])[:, middle]
    logits = features @ weights["head.weight"].T + weights["head.bias"]
    assert relative_error(logits, tensors["y"]) < 1e-5


def test_sizes_of_published_models() -> None:
    with torch.device("meta"):
        lm = Tower(lambda: Mamba(768), TowerConfig(768, 24))
        vim = Tower(lambda: BiMamba(192), TowerConfig(192, 24))
    vocabulary = 50280 * 768
    assert sum(p.numel() for p in lm.parameters()) + vocabulary == 129_135_360  # mamba-130m
    patches, tokens, head = 192 * 3 * 16 * 16 + 192, 198 * 192, 1000 * 193
    assert sum(p.numel() for p in vim.parameters()) + patches + tokens + head == 7_148_008


def make_attention() -> Attention:
    return Attention(8, AttentionConfig(n_heads=2))


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (lambda: Mamba(8), "out_proj"),
        (lambda: BiMamba(8), "out_proj"),
        (make_attention, "out_proj"),
        (lambda: RNN(8, RNNConfig(hidden=6)), "out_proj"),
    ],
)
def test_initial_values(make: partial[SequenceLayer], end: str) -> None:
    torch.manual_seed(0)
    n_layers = 4
    tower = Tower(make, TowerConfig(8, n_layers, mlp_hidden=32))
    for name, part in tower.named_modules():
        if not isinstance(part, nn.Linear):
            continue
        if name.endswith("dt_proj") or name.endswith("dt_proj_b"):
            assert (part.bias < -2).all()
        elif part.bias is not None:
            assert torch.equal(part.bias, torch.zeros_like(part.bias))
        if name.endswith((end, "fc2")):
            bound = part.in_features**-0.5 / math.sqrt(n_layers)
            assert 0.8 * bound < part.weight.abs().max() <= bound * (1 + 1e-6)
        if name.endswith(("in_proj", "fc1")):
            assert part.weight.abs().max() > 0.8 * part.in_features**-0.5


def test_residual_stream_does_not_grow_with_depth() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16, 32)
    sizes = []
    for n_layers in (2, 16):
        tower = Tower(lambda: BiMamba(32), TowerConfig(32, n_layers, mlp_hidden=64))
        y = x
        for block in tower.layers:
            y = block(y)
        sizes.append((y - x).square().mean().item())
    assert 0.5 < sizes[1] / sizes[0] < 2


def test_causal_only_if_every_mixer_is() -> None:
    kinds = iter([Mamba(8), BiMamba(8), Mamba(8), Mamba(8)])
    assert not Tower(lambda: next(kinds), TowerConfig(8, 2)).causal
    assert Tower(lambda: next(kinds), TowerConfig(8, 2)).causal


def test_drop_path_grows_linearly() -> None:
    tower = Tower(lambda: BiMamba(8), TowerConfig(8, 5, drop_path=0.2))
    drops = [block.drop for block in tower.layers]
    assert drops[0] is None
    rates = [drop[1].rate for drop in drops[1:]]  # type: ignore[index, union-attr]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("kind", ["mamba", "bimamba"])
def test_training_step_under_autocast_is_finite(kind: str) -> None:
    torch.manual_seed(0)
    make = partial(Mamba, 16) if kind == "mamba" else partial(BiMamba, 16)
    tower = Tower(make, TowerConfig(16, 3, mlp_hidden=32, dropout=0.1, drop_path=0.1))
    for scale in (0.0, 1.0, 1e6, 1e18):
        tower.zero_grad()
        x = scale * torch.randn(4, 65, 16)
        x[1] = scale
        with torch.autocast("cpu", torch.bfloat16):
            y = tower(x)
        y.square().mean().backward()
        assert y.dtype == torch.float32
        assert y.isfinite().all()
        for name, parameter in tower.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), (scale, name)


def test_truncated_backpropagation_equals_the_whole_in_values_not_in_gradients() -> None:
    torch.manual_seed(0)
    tower = Tower(lambda: Mamba(8), TowerConfig(8, 2)).double()
    x = torch.randn(1, 10, 8, dtype=torch.float64)

    def gradient(detach: bool) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        _, state = tower(leaf[:, :5], return_state=True)
        if detach:
            state = tuple(type(s)(*(t.detach() for t in s)) for s in state)
        y = tower(leaf[:, 5:], state=state)
        (grad,) = torch.autograd.grad(y.square().sum(), leaf)
        return y, grad

    y, grad = gradient(detach=False)
    y_cut, grad_cut = gradient(detach=True)
    torch.testing.assert_close(y, y_cut)
    assert grad[:, :5].abs().max() > 0
    assert grad_cut[:, :5].abs().max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 0}, "TowerConfig: d_model is 0, expected an integer of at least 1"),
        ({"n_layers": 0}, "TowerConfig: n_layers is 0, expected an integer of at least 1"),
        ({"mlp_hidden": -1}, "TowerConfig: mlp_hidden is -1, expected an integer of at least 0"),
        ({"norm": "rmsnorm"}, "TowerConfig: norm is 'rmsnorm', expected 'rms' or 'layer'"),
        ({"dropout": 1}, "TowerConfig: dropout is 1, expected a number in [0, 1)"),
        ({"drop_path": None}, "TowerConfig: drop_path is None, expected a number in [0, 1)"),
    ],
)
def test_config_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TowerConfig(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_mixer_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        Tower(lambda: nn.Linear(8, 8), TowerConfig(8))  # type: ignore[arg-type, return-value]
    assert str(caught.value) == "Tower: make_mixer returned a Linear, expected a SequenceLayer"
    with pytest.raises(ConfigError) as caught:
        Tower(lambda: Mamba(4), TowerConfig(8))
    assert str(caught.value) == "Tower: make_mixer returned a Mamba with d_model 4, expected 8"


def test_state_of_another_depth() -> None:
    tower = Tower(lambda: Mamba(8), TowerConfig(8, 2))
    state = tower.initial_state(1)
    with pytest.raises(StateError) as caught:
        tower(torch.zeros(1, 1, 8), state=state[:1])
    assert str(caught.value) == "Tower: state has 1 entries, expected one per layer, 2"
