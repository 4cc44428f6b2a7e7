"""A language model of transformers, with what it computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ssm_text import from_official
from ssm_text.official import to_official

GOLDEN = Path(__file__).parents[1] / "goldens" / "hf_mamba.safetensors"


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    state_dict = {name[3:]: value for name, value in tensors.items() if name.startswith("sd.")}
    return state_dict, config, tensors


@pytest.fixture(params=["huggingface", "official"])
def model(golden, request):
    state_dict, config, _ = golden
    model = from_official(state_dict, config)
    return from_official(*to_official(model, request.param))


@torch.no_grad()
def test_logits(golden, model):
    _, _, tensors = golden
    logits, expected = model(tensors["x"]), tensors["y"]
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
def test_greedy_continuation_by_steps(golden, model):
    expected = golden[2]["greedy"]
    state, ids = model.initial_state(1), expected[:, :5]
    for t in range(ids.shape[1]):
        logits, state = model.step(ids[:, t], state)
    while ids.shape[1] < expected.shape[1]:
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        logits, state = model.step(ids[:, -1], state)
    assert torch.equal(ids, expected)


@torch.no_grad()
def test_greedy_continuation_by_whole_texts(golden, model):
    expected = golden[2]["greedy"]
    ids = expected[:, :5]
    while ids.shape[1] < expected.shape[1]:
        ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(ids, expected)
