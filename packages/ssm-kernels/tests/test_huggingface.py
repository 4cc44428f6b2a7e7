"""transformers' models on our operators: the numbers of its own PyTorch functions, everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from huggingface_models import CONFIGS, build, count_calls, mixers, tokens
from torch import Tensor, nn

from ssm_kernels import huggingface

TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    huggingface.restore()


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def padded(l: int = 11) -> dict[str, Tensor]:
    mask = torch.ones(2, l, dtype=torch.long)
    mask[0, :4] = 0
    return {"input_ids": tokens(2, l), "attention_mask": mask}


def gradients(model: nn.Module, **batch: Any) -> dict[str, Tensor]:
    model.train()
    model.zero_grad()
    model(**batch).logits.square().mean().backward()
    model.eval()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", CONFIGS)
def test_padded_logits_and_gradients(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    model, batch = build(family), padded()
    with torch.no_grad():
        theirs = model(**batch).logits
    their_gradients = gradients(model, **batch)
    assert not any(calls.counts.values())

    huggingface.accelerate(model)
    with torch.no_grad():
        ours = model(**batch).logits
    assert calls.scans == calls.counts["conv1d"] == len(mixers(model))
    close(ours, theirs)
    our_gradients = gradients(model, **batch)
    assert calls.scans == 2 * len(mixers(model))
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in their_gradients.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(our_gradients[name], gradient, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("family", ["Mamba", "FalconMamba", "Mamba2", "Bamba"])
def test_greedy_generation(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    model = build(family)
    options = padded() | {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    theirs = model.generate(**options)
    huggingface.accelerate(model)
    ours = model.generate(**options)
    assert torch.equal(ours, theirs)
    steps = 5 * len(mixers(model))  # the first token comes from the prompt
    assert calls.counts["selective_state_update"] == calls.counts["conv1d_update"] == steps


@pytest.mark.parametrize("family", ["Mamba", "Mamba2"])
@pytest.mark.parametrize("recorded", [False, True], ids=["no grad", "grad"])
def test_pieces_with_a_cache(family: str, recorded: bool) -> None:
    # Several steps, one step, several steps again: each as transformers does it, which forgets
    # the state of Mamba before several steps. With gradients, one step is transformers' own.
    model, ids = build(family), tokens(2, 12)

    def run() -> list[Tensor]:
        outputs, state = [], None
        for piece in ids.split([6, 1, 5], dim=1):
            result = model(piece, use_cache=True, cache_params=state)
            outputs.append(result.logits)
            state = result.cache_params
        return outputs

    with torch.set_grad_enabled(recorded):
        theirs = run()
        huggingface.accelerate(model)
        for ours, expected in zip(run(), theirs, strict=True):
            close(ours, expected)


@pytest.mark.parametrize("family", ["Mamba", "Mamba2"])
def test_gradient_checkpointing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(family)
    theirs = gradients(model, **padded())
    theirs = {name: gradient.clone() for name, gradient in theirs.items()}
    model.activation_checkpointing_enable()
    huggingface.accelerate(model)
    calls = count_calls(monkeypatch)
    ours = gradients(model, **padded())
    assert calls.scans == 2 * len(mixers(model))  # forward, and again for the backward pass
    for name, gradient in theirs.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("family", ["Mamba", "Mamba2"])
def test_bfloat16_is_no_worse_than_theirs(family: str) -> None:
    model, ids = build(family), tokens()
    with torch.no_grad():
        exact = model(ids).logits
        model.to(torch.bfloat16)
        theirs = (model(ids).logits - exact).abs().mean()
        huggingface.accelerate(model)
        logits = model(ids).logits
    assert theirs > 0
    assert (logits - exact).abs().mean() < 1.5 * theirs


@pytest.mark.parametrize("changes", [{"hidden_act": "gelu"}, {"conv_kernel": 9}])
def test_what_our_convolution_lacks(changes: dict[str, Any]) -> None:
    model, ids = build("Mamba", **changes), tokens()
    with torch.no_grad():
        theirs = model(ids).logits
        huggingface.accelerate(model)
        close(model(ids).logits, theirs)
        step = model.generate(ids, max_new_tokens=2, pad_token_id=0)
        huggingface.restore()
        assert torch.equal(step, model.generate(ids, max_new_tokens=2, pad_token_id=0))
