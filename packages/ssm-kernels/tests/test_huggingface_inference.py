"""transformers' models in inference on a CPU: which kernels run, and who is still asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from huggingface_models import build, count_calls, mixers, tokens
from torch import Tensor, nn

from ssm_kernels import huggingface

WIDE = {"hidden_size": 128}  # linear layers large enough for a kernel of ours
HEADS = {"Mamba2": {"num_heads": 8, "head_dim": 32}}


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    huggingface.restore()


def modules(model: nn.Module) -> list[Any]:
    return list(mixers(model))


@torch.no_grad()
def logits(model: nn.Module, ids: Tensor) -> Tensor:
    result: Tensor = model(ids, use_cache=False).logits
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("l", [1, 2, 11, 300])
@pytest.mark.parametrize("family", ["Mamba", "FalconMamba", "Mamba2"])
def test_kernels_of_inference(
    family: str, l: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = build(family, **WIDE, **HEADS.get(family, {})).to(dtype), tokens(2, l)
    theirs = logits(model, ids)
    huggingface.accelerate(model)
    counts = count_calls(monkeypatch).counts
    ours = logits(model, ids)
    # transformers itself computes parts of a float64 model in float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert counts["fused_mamba_directions"] == (2 if family == "Mamba" else 0)
    assert counts["fused_rms_norm"] == 3
    assert counts["fused_gated_rms_norm"] == (2 if family == "Mamba2" else 0)
    rows = 2 * l  # up to 16, or many where there are enough products
    assert bool(counts["fused_linear"]) == (rows <= 16 or l == 300)


def test_with_gradients_nothing_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Mamba", **WIDE)
    huggingface.accelerate(model)
    counts = count_calls(monkeypatch).counts
    model(tokens()).logits.sum().backward()
    assert counts["selective_scan"] == 2
    assert not any(counts[name] for name in counts if name.startswith("fused"))


def test_all_models_have_fused_mixers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Mamba")
    theirs = logits(model, tokens())
    huggingface.accelerate()
    counts = count_calls(monkeypatch).counts
    torch.testing.assert_close(logits(model, tokens()), theirs, rtol=1e-5, atol=1e-5)
    assert counts["fused_mamba_directions"] == 2


def test_every_part_is_given_back() -> None:
    model = build("Mamba", **WIDE)
    theirs = logits(model, tokens())
    huggingface.accelerate(model)
    changed = [module for module in model.modules() if "forward" in vars(module)]
    assert {type(x).__name__ for x in changed} == {"MambaMixer", "MambaRMSNorm", "Linear"}
    huggingface.restore()
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(logits(model, tokens()), theirs)


class Adapted(nn.Linear):
    """What an adapter does: its own term is not in the weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.mean(dim=-1, keepdim=True)


def test_adapters_and_hooks_inside_a_mixer_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Mamba")
    first, second = modules(model)
    weight = first.x_proj.weight
    first.x_proj = Adapted(weight.shape[1], weight.shape[0], bias=False)
    first.x_proj.weight = weight
    heard: list[nn.Module] = []
    second.x_proj.register_forward_hook(lambda module, *_: heard.append(module))
    theirs = logits(model, tokens())
    huggingface.accelerate(model)
    counts = count_calls(monkeypatch).counts
    torch.testing.assert_close(logits(model, tokens()), theirs, rtol=1e-5, atol=1e-5)
    assert heard == 2 * [second.x_proj]
    assert counts["fused_mamba_directions"] == 0
    assert counts["selective_scan"] == 2


def test_nothing_is_computed_in_vain() -> None:
    model = build("Mamba").to(torch.bfloat16)
    huggingface.accelerate(model)
    called: list[nn.Module] = []
    for mixer in modules(model):
        mixer.in_proj.register_forward_hook(lambda module, *_: called.append(module))
    logits(model, tokens())
    assert called == [mixer.in_proj for mixer in modules(model)]
