"""Layers on CUDA tensors without data: everything they make follows the device of their input."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from ssm_core import build_mixer
from ssm_core.tower import Tower, TowerConfig
from ssm_kernels import native

WIDTH = 32  # a head of Mamba-2 has 64 channels
# all but the RNN: torch.nn.RNN looks at addresses
MIXERS = ["mamba", "bimamba", "mamba2", "mamba3", "s4", "s4d", "s5", "attention"]


@pytest.fixture(autouse=True)
def gpu_without_data(monkeypatch):
    monkeypatch.setattr(native, "cuda_problem", lambda device: None)
    with FakeTensorMode():
        yield


def assert_on_cuda(results: object) -> None:
    tensors = [x for x in tree_leaves(results) if isinstance(x, torch.Tensor)]
    assert tensors
    assert {x.device for x in tensors} == {torch.device("cuda", 0)}


@pytest.mark.parametrize("name", MIXERS)
def test_mixers(name: str) -> None:
    with torch.device("cuda"):
        layer = build_mixer(name, WIDTH).eval()
    x = torch.empty(2, 9, WIDTH, device="cuda")
    with torch.no_grad():
        if not layer.causal:
            assert_on_cuda(layer(x))
            return
        y, state = layer(x, return_state=True)
        assert_on_cuda((y, state))
        assert_on_cuda(layer(x, state=layer.initial_state(2), return_state=True))
        assert_on_cuda(layer.step(x[:, 0], state))


@pytest.mark.parametrize("name", MIXERS)
def test_towers(name: str) -> None:
    config = TowerConfig(WIDTH, n_layers=2, mlp_hidden=12, dropout=0.1, drop_path=0.1)
    with torch.device("cuda"):
        tower = Tower(lambda: build_mixer(name, WIDTH), config).train()
    assert_on_cuda(tower(torch.empty(2, 9, WIDTH, device="cuda")))
